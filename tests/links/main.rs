//! One suite that every kind of link passes.
//!
//! A new kind implements [`Kind`] and gets a line below, and one more if its ends may be in two processes.

mod conformance;
mod end;
mod kinds;
mod processes;
mod stream;

use kinds::{Fabric, Kind, Local, OfShm, OfTcp, SealedTcp, Shm, Tcp};

/// The whole suite for one kind, in a module of its own.
macro_rules! suite {
    ($name:ident, $kind:ty, [$($test:ident),* $(,)?]) => {
        mod $name {
            use super::*;

            $(
                #[test]
                fn $test() {
                    match <$kind>::missing() {
                        None => conformance::$test(<$kind>::pair()),
                        Some(why) => eprintln!("skipped: {why}"),
                    }
                }
            )*
        }
    };
    ($name:ident, $kind:ty) => {
        suite!($name, $kind, [
            messages_keep_their_order,
            every_size_crosses,
            credit_runs_out_and_comes_back,
            asking_again_gives_the_same_place,
            a_message_stays_until_it_is_released,
            a_received_message_may_be_written,
            both_directions_at_once,
            answers_go_back,
            credit_is_never_lost,
            tags_come_with_their_messages,
            too_long_a_message_is_refused,
            what_was_not_reserved_is_not_sent,
            lent_messages_are_read_until_settled,
            what_was_lent_is_taken_back_on_failure,
            a_reader_that_fails_lets_go,
            failure_is_news_after_the_last_message,
            leaving_is_news_after_the_last_message,
            a_failed_peer_gives_no_more_credit,
            nobody_sleeps_through_a_message,
            random_messages_between_threads,
        ]);
    };
}

suite!(local, Local);
suite!(shm, Shm);
suite!(fabric_tcp, Fabric<OfTcp>);
suite!(fabric_shm, Fabric<OfShm>);
/// The suite for a kind over a stream: a socket's buffers add to its credit, and it reads what is lent when it likes; see
/// `stream`.
macro_rules! stream_suite {
    ($name:ident, $kind:ty) => {
        suite!(
            $name,
            $kind,
            [
                messages_keep_their_order,
                every_size_crosses,
                asking_again_gives_the_same_place,
                a_message_stays_until_it_is_released,
                a_received_message_may_be_written,
                both_directions_at_once,
                answers_go_back,
                credit_is_never_lost,
                tags_come_with_their_messages,
                too_long_a_message_is_refused,
                what_was_not_reserved_is_not_sent,
                failure_is_news_after_the_last_message,
                leaving_is_news_after_the_last_message,
                a_failed_peer_gives_no_more_credit,
                nobody_sleeps_through_a_message,
                random_messages_between_threads,
            ]
        );
    };
}

stream_suite!(tcp, Tcp);
stream_suite!(sealed_tcp, SealedTcp);

/// The part of the suite that needs two processes.
macro_rules! between_processes {
    ($($name:ident: $kind:ty),* $(,)?) => {
        mod between_processes {
            use super::*;

            $(
                mod $name {
                    use super::*;

                    #[test]
                    fn random_messages() {
                        match <$kind>::missing() {
                            None => processes::random_messages::<$kind>(stringify!($name)),
                            Some(why) => eprintln!("skipped: {why}"),
                        }
                    }

                    #[test]
                    fn a_killed_peer_is_noticed_after_its_last_message() {
                        match <$kind>::missing() {
                            None => processes::killed_peer::<$kind>(stringify!($name)),
                            Some(why) => eprintln!("skipped: {why}"),
                        }
                    }
                }
            )*

            /// Not a test: what the other process of the tests above runs.
            #[test]
            #[ignore = "runs as the child of other tests"]
            fn child() {
                match std::env::var(processes::ROLE).unwrap_or_default().split_once(' ') {
                    $(Some((stringify!($name), role)) => processes::child::<$kind>(role),)*
                    other => assert_eq!(other, None),
                }
            }
        }
    };
}

between_processes!(
    shm: Shm,
    tcp: Tcp,
    sealed_tcp: SealedTcp,
    fabric_tcp: Fabric<OfTcp>,
    fabric_shm: Fabric<OfShm>
);
