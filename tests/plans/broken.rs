//! Plans broken on purpose, each refused with the step named.

use kolo::algorithm;
use kolo::plan::{
    Builder, Collective, CollectiveKind, Few, Lane, Plan, Source, Step, board, input, output, prove, scratch,
};
use kolo::topology::Topology;

/// Why plans are refused, printed.
fn refusal(collective: Collective, plans: &[Plan]) -> String {
    prove(collective, plans).expect_err("it must be refused").to_string()
}

/// A ring's plans, with some step of a rank changed.
fn ring(kind: CollectiveKind, ranks: usize, rank: usize, change: impl FnOnce(&mut Vec<Step>)) -> Vec<Plan> {
    let mut plans = super::plans(algorithm::find("ring").expect("there"), kind.at(0), ranks);
    change(&mut plans[rank].lanes[0].steps);
    plans
}

fn check(kind: CollectiveKind, plans: &[Plan], expected: &str) {
    let printed = refusal(kind.at(0), plans);
    assert!(printed.contains(expected) && !printed.contains('\n'), "{printed}\nexpected: {expected}");
}

#[test]
fn a_dropped_block() {
    use CollectiveKind::{AllGather, AllReduce};
    // The last block is received, but not kept.
    let plans = ring(AllGather, 4, 2, |steps| drop(steps.pop()));
    check(
        AllGather,
        &plans,
        "rank 2, lane 0, step 1 (relay: from 1 -> out[1] -> to 3): rank 1 sends out[3], which is not out[1]",
    );
    // A contribution is passed over.
    let plans = ring(AllReduce, 4, 1, |steps| {
        let Step::Move { sources, into, .. } = &mut steps[1] else { panic!("a move") };
        *into = Some(scratch(0, 3));
        *sources = Few::from([sources[0]]);
    });
    check(AllReduce, &plans, "there are 0 scratch banks");
    let mut plans = plans;
    plans[1].scratch = 1;
    check(AllReduce, &plans, "lacks the contribution of rank 1");
}

#[test]
fn a_double_count() {
    let kind = CollectiveKind::AllReduce;
    let plans = ring(kind, 4, 1, |steps| {
        let Step::Move { sources, .. } = &mut steps[1] else { panic!("a move") };
        *sources = sources.iter().copied().chain([sources[1]]).collect();
    });
    check(kind, &plans, "has the contribution of rank 1 twice");
    check(kind, &plans, "rank 0, lane 0, step 4 (relay: from 3 -> out[3] -> to 1): in the end out[3]");
}

#[test]
fn receive_before_send() {
    let kind = CollectiveKind::AllReduce;
    let mut plans = ring(kind, 3, 0, |_| ());
    plans.iter_mut().for_each(|plan| plan.lanes[0].steps.swap(0, 1));
    check(kind, &plans, "it waits forever for a message from rank");
    check(kind, &plans, "step 0 (reduce-send: from ");
}

#[test]
fn an_overwrite_while_sending() {
    let kind = CollectiveKind::AllReduce;
    let mut plans = super::plans(algorithm::find("direct").expect("there"), kind.at(0), 3);
    assert!(prove(kind.at(0), &plans).is_ok());
    plans.iter_mut().for_each(|plan| plan.lends = true);
    check(
        kind,
        &plans,
        "rank 2, lane 0, step 2 (reduce: from 0 + from 1 + in[0] -> finish -> out[0]): it overwrites block 0 of out[0] while rank 0 may still be reading it (in place)",
    );
    // A scratch bank that is lent in one round and filled again in the next.
    let chain = |rank: usize| {
        let mut plan = Builder::new(1, 1).lends();
        let mut lane = plan.lane(0);
        match rank {
            0 => _ = lane.copy(input(0), scratch(0, 0)).send(scratch(0, 0), 1).copy(input(0), output(0)),
            _ => _ = lane.recv(0, output(0)),
        }
        plan.simple()
    };
    let kind = CollectiveKind::Broadcast;
    check(
        kind,
        &[chain(0), chain(1)],
        "step 0 (copy: in[0] -> scratch0[0]): it overwrites block 0 of scratch0[0] while rank 1",
    );
}

#[test]
fn finish_twice_and_never() {
    let kind = CollectiveKind::AllReduce;
    let finishing = |at: usize, to: bool| {
        ring(kind, 3, 0, |steps| {
            let Step::Move { finish, .. } = &mut steps[at] else { panic!("a move") };
            *finish = to;
        })
    };
    check(
        kind,
        &finishing(2, false),
        "rank 0, lane 0, step 2 (reduce-send: from 2 + in[0] -> out[0] -> to 1): in the end out[0] is never finished",
    );
    check(
        kind,
        &finishing(4, true),
        "rank 0, lane 0, step 4 (recv: from 2 -> finish -> out[1]): in the end out[1] is finished twice",
    );
}

#[test]
fn lanes_without_order() {
    let plan = |tokens: bool| {
        let mut plan = Builder::new(1, 1);
        let mut first = plan.lane(0);
        first.finish(input(0), output(0));
        if tokens {
            first.post(1);
        }
        let mut second = plan.lane(1);
        if tokens {
            second.join(0);
        }
        second.copy(output(0), scratch(0, 0));
        plan.fused()
    };
    let kind = CollectiveKind::AllReduce;
    check(kind, &[plan(false)], "it reads block 0 of out[0], which lane 0 writes at no certain time");
    prove(kind.at(0), &[plan(true)]).expect("ordered by tokens");
    let mut untaken = plan(true);
    untaken.lanes[1].steps.clear();
    check(kind, &[untaken], "rank 0: a token from lane 0 to lane 1 is never taken");
    let mut ungiven = plan(true);
    ungiven.lanes[0].steps.pop();
    check(
        kind,
        &[ungiven],
        "rank 0, lane 1, step 0 (join: lane 0): it waits forever for a token from lane 0",
    );
}

#[test]
fn a_barrier_that_lets_through() {
    let kind = CollectiveKind::Barrier;
    let ring_of_one_lap = |rank: usize| {
        let mut plan = Builder::new(1, 1);
        plan.lane(0).send(input(0), (rank + 1) % 3).recv((rank + 2) % 3, output(0));
        plan.simple()
    };
    check(kind, &[0, 1, 2].map(ring_of_one_lap), "rank 0: it may leave before rank 1 has come");
}

#[test]
fn what_needs_no_run() {
    let kind = CollectiveKind::AllReduce;
    let changed = |change: &dyn Fn(&mut Plan)| {
        let mut plans = ring(kind, 2, 0, |_| ());
        change(&mut plans[1]);
        plans
    };
    let step = |step: Step| move |plan: &mut Plan| plan.lanes[0].steps[0] = step.clone();
    let send = |span, to: u32| Step::Move {
        sources: Few::from([Source::Local(span)]),
        finish: false,
        into: None,
        to: Few::from([to]),
    };
    let copy = |span, into| Step::Move {
        sources: Few::from([Source::Local(span)]),
        finish: false,
        into: Some(into),
        to: Few::None,
    };
    let relay =
        Step::Move { sources: Few::from([Source::From(0)]), finish: false, into: None, to: Few::from([0]) };
    type Change<'a> = &'a dyn Fn(&mut Plan);
    let cases: [(Change<'_>, &str); 9] = [
        (&|plan| plan.blocks = 3, "(blocks, width) are (3, 1) here and (2, 1) on rank 0"),
        (&step(send(input(2), 0)), "in[2] is out of range: there are 2 blocks"),
        (&step(send(input(0).wide(2), 0)), "in[0; 2] is wider than the plan's width, 1"),
        (&step(send(input(0), 1)), "to 1: there is no such other rank of 2"),
        (&step(copy(input(0), output(1))), "in[0] and out[1] are different blocks"),
        (&step(copy(input(0), input(0))), "it writes in[0], an input"),
        (&step(relay), "it names no span, so nobody knows its length"),
        (&step(Step::Join(0)), "there is no other lane 0"),
        (&|plan| plan.lanes[0].channel = 1, "rank 1 has no lane that receives this on channel 0"),
    ];
    for (change, expected) in cases {
        check(kind, &changed(change), expected);
    }
    let twice = changed(&|plan| {
        let lane = Lane { channel: 0, steps: vec![send(input(0), 0)] };
        plan.lanes.push(lane);
    });
    check(
        kind,
        &twice,
        "rank 1, lane 1, step 0 (send: in[0] -> to 0): lane 0 uses the same channel with rank 0",
    );
    let scatter = |rank: usize| {
        let mut plan = Builder::new(2, 1);
        plan.lane(0).copy(input(rank), output(rank));
        plan.simple()
    };
    check(CollectiveKind::Scatter, &[0, 1].map(scatter), "block 1 of in[1] is no input of this rank");
}

#[test]
fn a_message_left_over() {
    let kind = CollectiveKind::Barrier;
    let greet = |rank: usize| {
        let mut plan = Builder::new(1, 1);
        plan.lane(0).send(input(0), 1 - rank).recv(1 - rank, output(0));
        plan.simple()
    };
    let mut plans = [0, 1].map(greet);
    prove(kind.at(0), &plans).expect("both came");
    let again = plans[0].lanes[0].steps[0].clone();
    plans[0].lanes[0].steps.push(again);
    check(
        kind,
        &plans,
        "rank 0, lane 0, step 2 (send: in[0] -> to 1): its message to rank 1 is never received",
    );
}

#[test]
fn scratch_does_not_last_from_round_to_round() {
    let kind = CollectiveKind::AllReduce;
    let mut plan = Builder::new(1, 1);
    plan.lane(0).finish(scratch(0, 0), output(0)).copy(input(0), scratch(0, 0));
    check(kind, &[plan.simple()], "it reads block 0 of scratch0[0] before that is written");
    // Another lane may be rounds ahead.
    let mut plan = Builder::new(1, 1);
    plan.lane(0).copy(input(0), scratch(0, 0));
    plan.lane(1).finish(scratch(0, 0), output(0));
    check(
        kind,
        &[plan.simple()],
        "rank 0, lane 1, step 0 (finish: scratch0[0] -> finish -> out[0]): it reads block 0 of scratch0[0], which lane 0 writes at no certain time",
    );
}

/// A broadcast from rank 0 over the board: signals when it is written, signals when it is read.
fn over_the_board(written: bool, read: bool) -> [Plan; 2] {
    let mut root = Builder::new(1, 0).board(1);
    let mut lane = root.lane(0);
    lane.copy(input(0), board(0, 0)).copy(input(0), output(0));
    if written {
        lane.signal(1);
    }
    if read {
        lane.await_signal(1);
    }
    let mut other = Builder::new(1, 0).board(1);
    let mut lane = other.lane(0);
    if written {
        lane.await_signal(0);
    }
    lane.copy(board(0, 0), output(0));
    if read {
        lane.signal(0);
    }
    [root.fused(), other.fused()]
}

#[test]
fn races_on_the_board() {
    let kind = CollectiveKind::Broadcast;
    prove(kind.at(0), &over_the_board(true, true)).expect("ordered both ways");
    check(
        kind,
        &over_the_board(true, false),
        "rank 1, lane 0, step 1 (copy: board0[0] -> out[0]): it reads block 0 of board0[0], which rank 0 writes at no certain time",
    );
    check(
        kind,
        &over_the_board(false, true),
        "rank 1, lane 0, step 0 (copy: board0[0] -> out[0]): it reads block 0 of board0[0], which rank 0 writes at no certain time",
    );
    // Two ranks that write without knowing of each other.
    let mut plans = over_the_board(true, true);
    let note = plans[0].lanes[0].steps[0].clone();
    plans[1].lanes[0].steps.insert(0, note);
    check(kind, &plans, "is no input of this rank");
    let Step::Move { sources, .. } = &mut plans[1].lanes[0].steps[0] else { panic!("a move") };
    *sources = Few::from([Source::Local(output(0))]);
    check(kind, &plans, "rank 1, lane 0, step 0 (copy: out[0] -> board0[0]): it");
}

#[test]
fn signals_are_no_messages_and_boards_alike() {
    let kind = CollectiveKind::Broadcast;
    let broken = |change: &dyn Fn(&mut [Plan; 2])| {
        let mut plans = over_the_board(true, true);
        change(&mut plans);
        plans
    };
    check(kind, &broken(&|plans| plans[1].board = 2), "rank 1: board banks are 2 here and 1 on rank 0");
    check(
        kind,
        &broken(&|plans| plans.iter_mut().for_each(|plan| plan.board = 0)),
        "no blocks, no width or too many lanes",
    );
    let receive = Step::Move {
        sources: Few::from([Source::From(0)]),
        finish: false,
        into: Some(output(0)),
        to: Few::None,
    };
    let confused = broken(&|plans| plans[1].lanes[0].steps[0] = receive.clone());
    check(kind, &confused, "it sends or receives blocks, in a plan of width 0");
    let mut confused = confused;
    confused.iter_mut().for_each(|plan| plan.width = 1);
    check(kind, &confused, "rank 0 sends a signal, which is not out[0]");
    let send = Step::Move {
        sources: Few::from([Source::Local(input(0))]),
        finish: false,
        into: None,
        to: Few::from([1]),
    };
    let mut confused = broken(&|plans| plans[0].lanes[0].steps[2] = send.clone());
    confused.iter_mut().for_each(|plan| plan.width = 1);
    check(kind, &confused, "rank 1, lane 0, step 0 (await: from 0): rank 0 sends in[0], which is no signal");
    check(
        kind,
        &broken(&|plans| plans[0].lanes[0].steps[2] = Step::Signal(0)),
        "to 0: there is no such other",
    );
    check(
        kind,
        &broken(&|plans| drop(plans[0].lanes[0].steps.pop())),
        "rank 1, lane 0, step 2 (signal: to 0): rank 0 has no lane that receives this on channel 0",
    );
}

/// What is copied out late is overwritten in the next round.
#[test]
fn a_board_that_is_used_again_too_early() {
    let kind = CollectiveKind::AllReduce;
    let topology = Topology::one_host(4).with_cores(2);
    let algorithm = algorithm::find("board").expect("there");
    let plans = || algorithm::plans(algorithm, kind.at(0), &topology).expect("it does");
    prove(kind.at(0), &plans()).expect("as it is");
    // A member lets its leader go on, and only then copies its input.
    let mut early = plans();
    early[0].lanes[0].steps.swap(0, 1);
    check(kind, &early, "which rank 0 writes at no certain time");
    // A leader lets its member go on, and only then gets the other leader's block.
    let mut early = plans();
    let steps = &mut early[1].lanes[0].steps;
    let told = steps.len() - 2;
    assert_eq!(steps[told], Step::Signal(0));
    steps.swap(told, told - 1);
    check(
        kind,
        &early,
        "rank 0, lane 0, step 3 (copy: board1[0; 2] -> out[0; 2]): it reads block 1 of board1[0; 2], which rank 3 writes at no certain time",
    );
    // A leader that does not wait for its member overwrites what that one still copies out.
    let mut early = plans();
    early[0].lanes[0].steps.retain(|step| !matches!(step, Step::Signal(_)));
    early[1].lanes[0].steps.retain(|step| *step != Step::Await(0));
    check(kind, &early, "which rank 0 writes at no certain time");
}
