//! Pipeline schedules: proofs, refusals, bubbles.

use kolo_trainer::schedule::{Action, Costs, Fault, Message, one_forward_one_backward, simulate, verify};

fn schedules(stages: usize, microbatches: usize) -> Vec<Vec<Action>> {
    (0..stages).map(|stage| one_forward_one_backward(stage, stages, microbatches)).collect()
}

const EQUAL: Costs = Costs { forward: 1.0, backward_input: 1.0, backward_weight: 1.0, transfer: 0.0 };

#[test]
fn one_forward_one_backward_is_proved() {
    for stages in 1..=8 {
        for microbatches in 1..=20 {
            let proof = verify(&schedules(stages, microbatches), microbatches, |stage| stages - stage + 1)
                .unwrap_or_else(|fault| panic!("{stages} stages, {microbatches} microbatches: {fault}"));
            assert!(proof.in_flight.iter().all(|&n| n <= microbatches));
        }
    }
}

#[test]
fn bubble_is_below_that_of_an_unsplit_backward_pass() {
    // 1F1B without the split: (p - 1) / (m + p - 1).
    for (stages, microbatches) in [(2, 4), (4, 8), (4, 16), (8, 32)] {
        let bubble = simulate(&schedules(stages, microbatches), &EQUAL).unwrap().bubble();
        let unsplit = (stages - 1) as f64 / (microbatches + stages - 1) as f64;
        assert!(bubble > 0.0 && bubble < unsplit, "{stages} x {microbatches}: {bubble} against {unsplit}");
    }
}

#[test]
fn one_stage_has_no_bubble() {
    let timeline = simulate(&schedules(1, 5), &EQUAL).unwrap();
    assert_eq!((timeline.end, timeline.bubble()), (15.0, 0.0));
}

/// The end of the picture in the module's documentation.
#[test]
fn the_picture_takes_sixteen_steps() {
    assert_eq!(simulate(&schedules(3, 4), &EQUAL).unwrap().end, 16.0);
}

#[test]
fn transfers_take_their_time() {
    // One microbatch through two stages: F, transfer, F, B, transfer, B, and the first stage's w.
    let costs = Costs { forward: 1.0, backward_input: 10.0, backward_weight: 100.0, transfer: 1000.0 };
    assert_eq!(simulate(&schedules(2, 1), &costs).unwrap().end, 2122.0);
}

/// The microbatches that an action touches.
fn microbatches_of(action: Action) -> Vec<usize> {
    let of = |message| match message {
        Message::Activation(m) | Message::Gradient(m) => m,
    };
    match action {
        Action::Forward(m) | Action::BackwardInput(m) | Action::BackwardWeight(m) => vec![m],
        Action::Send(message) | Action::Receive(message) => vec![of(message)],
        Action::Exchange { send, receive } => vec![of(send), of(receive)],
    }
}

/// Every list with one action dropped or doubled is refused; with two neighbours swapped it is refused, or
/// the two do not depend on each other: they touch different microbatches, or one is a weight half that
/// may as well run before its microbatch's gradient is sent.
#[test]
fn broken_schedules_are_refused() {
    let (stages, microbatches) = (3, 4);
    let whole = schedules(stages, microbatches);
    let check = |lists: &[Vec<Action>]| verify(lists, microbatches, |stage| stages - stage + 1);
    let mut refused = 0;
    for stage in 0..stages {
        for (index, &action) in whole[stage].iter().enumerate() {
            let mut dropped = whole.clone();
            dropped[stage].remove(index);
            assert!(check(&dropped).is_err(), "dropped {action:?} of stage {stage}");

            let mut doubled = whole.clone();
            doubled[stage].insert(index, action);
            assert!(check(&doubled).is_err(), "doubled {action:?} of stage {stage}");

            let Some(&next) = whole[stage].get(index + 1) else { continue };
            let mut swapped = whole.clone();
            swapped[stage].swap(index, index + 1);
            if check(&swapped).is_err() {
                refused += 1;
                continue;
            }
            let shared = microbatches_of(action).iter().any(|m| microbatches_of(next).contains(m));
            let is_weight = matches!(next, Action::BackwardWeight(_));
            assert!(
                !shared || is_weight && !matches!(action, Action::BackwardInput(_)),
                "{action:?}, {next:?}"
            );
        }
    }
    assert!(refused > 20, "{refused} swaps refused");
}

#[test]
fn faults_are_named() {
    // Two neighbours that both send first wait for ever.
    let mut lists = schedules(2, 2);
    let at = lists[1].iter().position(|a| matches!(a, Action::Exchange { .. })).unwrap();
    let Action::Exchange { send, receive } = lists[1][at] else { unreachable!() };
    lists[1].splice(at..=at, [Action::Send(send), Action::Receive(receive)]);
    let at = lists[0].iter().position(|a| matches!(a, Action::Exchange { .. })).unwrap();
    let Action::Exchange { send, receive } = lists[0][at] else { unreachable!() };
    lists[0].splice(at..=at, [Action::Send(send), Action::Receive(receive)]);
    assert!(matches!(verify(&lists, 2, |_| 9), Err(Fault::Deadlock { waits }) if waits.len() == 2));

    let mut lists = schedules(2, 2);
    lists[0].insert(0, Action::BackwardInput(0));
    let fault = verify(&lists, 2, |_| 9).unwrap_err();
    assert_eq!(fault.to_string(), "stage 0, action 0: BackwardInput(0) comes before forward pass");

    let mut lists = schedules(2, 2);
    lists[1].push(Action::Send(Message::Activation(0)));
    assert!(matches!(verify(&lists, 2, |_| 9), Err(Fault::NoNeighbour { stage: 1, .. })));

    assert!(matches!(verify(&schedules(4, 8), 8, |_| 2), Err(Fault::InFlight { stage: 0, .. })));
}
