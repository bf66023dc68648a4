//! Why nothing comes: from what each rank of a job says to the one rank, call or circle that all others wait for.

use std::collections::BTreeMap;

use kolo::Kind;
use kolo::engine::Signature;
use kolo::health::{Failure, Report};

/// Where a rank stands on one communicator.
pub(crate) struct Stance {
    pub(crate) report: Report,
    /// Why it failed there, where that is known.
    pub(crate) failure: Option<Failure>,
    /// The calls that are known, as they travel, the newest last.
    pub(crate) calls: Vec<[u64; 4]>,
}

/// What each rank says that says anything.
pub(crate) struct Ranks<'a> {
    pub(crate) said: BTreeMap<u32, Vec<Stance>>,
    /// What it may mean that a rank says nothing, such as `left no record`.
    pub(crate) silence: &'a str,
}

impl Stance {
    /// The call that it is in, or was in last.
    pub(crate) fn call(&self) -> Option<[u64; 4]> {
        self.report.waiting.as_ref().map(|waiting| waiting.call).or_else(|| self.calls.last().copied())
    }

    /// Whether it is in a call, or failed in one.
    fn is_stuck(&self) -> bool {
        self.failure.is_some() || self.report.waiting.is_some()
    }
}

/// Where following who waits for whom has led.
enum End {
    /// That rank says nothing.
    Silent(u32),
    /// It has not made the call.
    Absent(u32, u64),
    /// It failed because of nobody else.
    Failed(u32, u64),
    /// These wait for each other.
    Circle(Vec<(u32, u64)>),
    /// It is neither absent nor waiting.
    Moves(u32),
}

impl Ranks<'_> {
    /// In one line; nothing where nobody waits and nothing has failed.
    pub(crate) fn cause(&self) -> Option<String> {
        self.mismatch().or_else(|| self.hang())
    }

    fn stance(&self, rank: u32, communicator: u64) -> Option<&Stance> {
        let of = |stance: &&Stance| stance.report.communicator == communicator;
        self.said.get(&rank)?.iter().rev().find(of)
    }

    fn all(&self) -> impl Iterator<Item = (u32, &Stance)> {
        self.said.iter().flat_map(|(rank, stances)| stances.iter().map(move |stance| (*rank, stance)))
    }

    /// Ranks that made different calls of one number.
    fn mismatch(&self) -> Option<String> {
        let differs = |stance: &Stance| stance.failure.as_ref().is_some_and(|it| it.kind == Kind::Mismatch);
        let (_, at) = self.all().find(|(_, stance)| differs(stance))?;
        let communicator = at.report.communicator;
        // Who only sent may have learnt of it in its next call.
        let number = at.report.clash.map_or(at.call()?, |clash| clash.calls[0])[1];
        let mut sides: Vec<([u64; 4], Vec<u32>)> = Vec::new();
        for &rank in self.said.keys() {
            let Some(stance) = self.stance(rank, communicator) else { continue };
            let calls = stance.report.waiting.iter().map(|waiting| &waiting.call).chain(&stance.calls);
            let Some(call) = calls.into_iter().find(|call| call[1] == number) else { continue };
            match sides.iter_mut().find(|(known, _)| known == call) {
                Some((_, ranks)) => ranks.push(rank),
                None => sides.push((*call, vec![rank])),
            }
        }
        if number == 0 || sides.len() < 2 {
            // Between two ranks, or the counts of a vector of them: what the error says is all there is.
            let failure = at.failure.as_ref()?;
            return Some(format!("mismatch: {}", printable(&failure.text)));
        }
        // Who differs from most; of two the one that is not the first.
        sides.sort_by_key(|(_, ranks)| (ranks.len(), std::cmp::Reverse(ranks[0])));
        let side = |(call, ranks): &([u64; 4], Vec<u32>)| format!("{} called {}", list(ranks), words(*call));
        Some(format!("mismatch: {}", sides.iter().map(side).collect::<Vec<_>>().join(", ")))
    }

    fn hang(&self) -> Option<String> {
        // A rank that gave up has followed the others while they lived.
        let urgency = |stance: &Stance| match (&stance.failure, &stance.report.waiting) {
            (Some(Failure { kind: Kind::Deadline, .. }), _) => 0,
            (None, Some(_)) => 1,
            _ => 2,
        };
        let stuck = self.all().filter(|(_, stance)| stance.is_stuck());
        let (rank, start) = stuck.min_by_key(|(rank, stance)| (urgency(stance), *rank))?;
        let call = start.call().unwrap_or([start.report.communicator, start.report.begun, 0, 0]);
        let (end, call) = self.follow(rank, call);
        let waiters = self.waiters(call, &end);
        let (place, wait) = (words(call), if waiters.len() == 1 { "waits" } else { "wait" });
        let waiting = match &waiters[..] {
            [] => "nobody else is known to wait".into(),
            _ => format!("{} {wait} for it", list(&waiters)),
        };
        Some(match end {
            End::Silent(rank) => {
                let lost = matches!(&start.failure, Some(failure) if failure.kind == Kind::PeerLost);
                format!(
                    "{}: rank {rank} {}; {waiting} in {place}",
                    if lost { "lost" } else { "hang" },
                    self.silence
                )
            }
            End::Absent(rank, communicator) => {
                format!(
                    "hang: rank {rank} has not made {place}: {}; {waiting}",
                    self.last(rank, communicator)
                )
            }
            End::Failed(rank, communicator) => {
                let failure = self.stance(rank, communicator).and_then(|stance| stance.failure.as_ref());
                let text = failure.map_or("it does not say why".into(), |failure| printable(&failure.text));
                format!("failure: rank {rank} failed because of nobody else: {text}")
            }
            End::Moves(rank) => format!("rank {rank} moves; {waiting} in {place}"),
            End::Circle(ranks) => {
                let place = |(rank, communicator): &(u32, u64)| {
                    let call = self.stance(*rank, *communicator).and_then(Stance::call);
                    format!("rank {rank} in {}", call.map_or("a call".into(), words))
                };
                let places = ranks.iter().map(place).collect::<Vec<_>>().join(", which waits for ");
                format!("hang: a circle: {places}, which waits for rank {}", ranks[0].0)
            }
        })
    }

    /// Follows from a rank in a call to whose turn it is, and in which call that one is waited for.
    fn follow(&self, mut rank: u32, mut call: [u64; 4]) -> (End, [u64; 4]) {
        let mut trail = Vec::new();
        loop {
            let communicator = call[0];
            let Some(stances) = self.said.get(&rank) else { return (End::Silent(rank), call) };
            let here = self.stance(rank, communicator);
            // Where it is stuck: in that call, or in another one that keeps it from it.
            let in_it = |stance: &&Stance| stance.is_stuck() && stance.report.begun >= call[1];
            let other = || stances.iter().rev().find(|stance| stance.is_stuck());
            let Some(stance) = here.filter(in_it).or_else(other) else {
                let begun = here.map_or(0, |stance| stance.report.begun);
                let absent = here.is_none() || begun < call[1];
                return (if absent { End::Absent(rank, communicator) } else { End::Moves(rank) }, call);
            };
            let place = (rank, stance.report.communicator);
            if let Some(at) = trail.iter().position(|known| *known == place) {
                return (End::Circle(trail.split_off(at)), call);
            }
            trail.push(place);
            let blamed = stance.report.failed.flatten().filter(|other| *other != rank);
            let on = stance.report.waiting.as_ref().and_then(|waiting| waiting.on.first());
            let Some(next) = blamed.or(on.map(|awaited| awaited.rank)) else {
                return (End::Failed(rank, place.1), call);
            };
            call = stance.call().unwrap_or([place.1, stance.report.begun, 0, 0]);
            rank = next;
        }
    }

    /// Who is stuck in a call, but for those that keep the others there.
    fn waiters(&self, call: [u64; 4], end: &End) -> Vec<u32> {
        let culprit = match *end {
            End::Silent(rank) | End::Absent(rank, _) | End::Failed(rank, _) | End::Moves(rank) => Some(rank),
            End::Circle(_) => None,
        };
        let stuck = |rank: &u32| {
            let stance = self.stance(*rank, call[0]).filter(|stance| stance.is_stuck());
            stance.and_then(Stance::call).is_some_and(|theirs| theirs[1] == call[1])
        };
        self.said.keys().copied().filter(|rank| Some(*rank) != culprit && stuck(rank)).collect()
    }

    /// How far a rank has come.
    fn last(&self, rank: u32, communicator: u64) -> String {
        match self.stance(rank, communicator) {
            None => "it has no such communicator, or has let go of it".into(),
            Some(stance) if stance.report.begun == 0 => "it has made none there".into(),
            Some(stance) if stance.report.done < stance.report.begun => {
                format!("it is in call #{}", stance.report.begun)
            }
            Some(stance) => format!("its last one there was #{}", stance.report.begun),
        }
    }
}

/// A call in words.
pub(crate) fn words(call: [u64; 4]) -> String {
    match Signature::decode(call) {
        Some(signature) => signature.to_string(),
        None => format!("call #{} of communicator {:08x}", call[1], call[0] as u32),
    }
}

/// `rank 3`, `ranks 0 to 2 and 5`.
pub(crate) fn list(ranks: &[u32]) -> String {
    let run = |run: &[u32]| match run {
        [one] => vec![one.to_string()],
        [one, other] => vec![one.to_string(), other.to_string()],
        _ => vec![format!("{} to {}", run[0], run[run.len() - 1])],
    };
    let mut parts: Vec<String> = ranks.chunk_by(|a, b| a + 1 == *b).flat_map(run).collect();
    let plural = if ranks.len() == 1 { "rank" } else { "ranks" };
    match parts.pop() {
        None => "nobody".into(),
        Some(last) if parts.is_empty() => format!("{plural} {last}"),
        Some(last) => format!("{plural} {} and {last}", parts.join(", ")),
    }
}

/// What a terminal may be shown of what somebody else wrote: one line, and nothing that moves its cursor.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kolo::health::{Awaited, Waiting};

    use super::*;

    const SILENCE: &str = "says nothing";

    /// A call by its communicator and number: all_reduce of that many f32.
    fn call(communicator: u64, number: u64, count: u64) -> [u64; 4] {
        [communicator, number, count, 0]
    }

    /// A rank that has begun so many calls and waits in the last one for another rank, or not.
    fn stance(communicator: u64, begun: u64, on: Option<u32>) -> Stance {
        let calls: Vec<_> = (1..=begun).map(|number| call(communicator, number, 100)).collect();
        let waiting = on.map(|rank| Waiting {
            call: call(communicator, begun, 100),
            waited: Duration::from_secs(1),
            on: vec![Awaited { rank, message: true }],
        });
        let done = begun - u64::from(on.is_some());
        Stance {
            report: Report { communicator, begun, done, failed: None, clash: None, waiting },
            failure: None,
            calls,
        }
    }

    fn cause(said: Vec<(u32, Vec<Stance>)>) -> String {
        Ranks { said: said.into_iter().collect(), silence: SILENCE }.cause().expect("somebody waits")
    }

    fn failing(kind: Kind, blamed: Option<u32>, mut stance: Stance) -> Stance {
        stance.report.failed = Some(blamed);
        stance.failure = Some(Failure { kind, text: "what was said".into() });
        stance
    }

    #[test]
    fn a_rank_that_did_not_come_is_found_through_those_that_wait_for_it() {
        let ring = |rank, on| (rank, vec![stance(7, 5, Some(on))]);
        let text = cause(vec![ring(0, 3), ring(1, 0), (2, vec![stance(7, 4, None)]), ring(3, 2)]);
        let expected =
            ["hang: rank 2 has not made", "#5", "its last one there was #4", "ranks 0, 1 and 3 wait"];
        assert!(expected.iter().all(|part| text.contains(part)), "{text}");
        let text = cause(vec![ring(0, 3), ring(1, 0), ring(3, 2)]);
        assert!(text.starts_with("hang: rank 2 says nothing; ranks 0, 1 and 3 wait for it in"), "{text}");
        let text = cause(vec![(0, vec![stance(7, 5, Some(1))]), (1, vec![])]);
        assert!(
            text.contains("rank 1 has not made") && text.contains("let go of it; rank 0 waits"),
            "{text}"
        );
    }

    #[test]
    fn a_circle_over_communicators_is_shown() {
        let both = |rank: u32, on: u64, other: u64| {
            (rank, vec![stance(other, 1, None), stance(on, 2, Some(1 - rank))])
        };
        let text = cause(vec![both(0, 7, 8), both(1, 8, 7)]);
        assert!(
            text.starts_with("hang: a circle: rank 0 in ") && text.ends_with("waits for rank 0"),
            "{text}"
        );
    }

    #[test]
    fn the_blame_of_failures_is_followed() {
        let late = |on| failing(Kind::Deadline, Some(on), stance(7, 5, Some(on)));
        let lost = |on| failing(Kind::PeerLost, Some(on), stance(7, 5, None));
        let text = cause(vec![(0, vec![lost(1)]), (1, vec![late(2)]), (2, vec![stance(7, 4, None)])]);
        assert!(text.contains("rank 2 has not made") && text.contains("ranks 0 and 1 wait"), "{text}");
        let aborted = failing(Kind::Aborted, None, stance(7, 5, None));
        let text = cause(vec![(0, vec![lost(1)]), (1, vec![aborted])]);
        assert_eq!(text, "failure: rank 1 failed because of nobody else: what was said");
        let text = cause(vec![(0, vec![lost(1)])]);
        assert!(text.starts_with("lost: rank 1 says nothing; rank 0 waits for it in"), "{text}");
    }

    #[test]
    fn whoever_called_differently_from_most_is_named_first() {
        let wrong = |rank, count| {
            let mut stance = failing(Kind::Mismatch, None, stance(7, 2, None));
            stance.calls[1][2] = count;
            (rank, vec![stance])
        };
        let text = cause(vec![wrong(0, 99), wrong(1, 99), wrong(2, 98), wrong(3, 99)]);
        assert!(text.starts_with("mismatch: rank 2 called ") && text.contains("98 x"), "{text}");
        assert!(text.contains(", ranks 0, 1 and 3 called "), "{text}");
        let text = cause(vec![wrong(0, 99), wrong(1, 98)]);
        assert!(text.starts_with("mismatch: rank 1 called ") && text.contains(", rank 0 called "), "{text}");
        let text = cause(vec![wrong(0, 99), wrong(1, 99)]);
        assert_eq!(text, "mismatch: what was said", "counts that are not in the signature");
    }

    #[test]
    fn nobody_is_named_where_nobody_waits() {
        let said = [(0, vec![stance(7, 5, None)]), (1, vec![])].into_iter().collect();
        assert_eq!(Ranks { said, silence: SILENCE }.cause(), None);
        assert_eq!(list(&[0, 1, 2, 5, 7, 8]), "ranks 0 to 2, 5, 7 and 8");
        assert_eq!((list(&[4]), list(&[])), ("rank 4".into(), "nobody".into()));
        assert_eq!(printable("a\x1b[2J\nb"), "a?[2J?b");
    }
}
