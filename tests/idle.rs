//! No burnt cores: whoever waits for long sleeps. Alone in its process, since it counts the processor time of
//! all threads.

mod support;

use std::time::Duration;

use kolo::{Buffer, ReduceOp};
use support::ranks_over;

/// Processor time of this process so far, in hundredths of a second.
fn processor_time() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux tells");
    // Fields 14 and 15 of proc(5), counted after the command's closing parenthesis.
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a last part").split_whitespace().collect();
    fields[11].parse::<u64>().expect("ticks") + fields[12].parse::<u64>().expect("ticks")
}

const LATE: Duration = Duration::from_secs(1);

/// What `ranks` ranks may burn while one of them is late: a tenth of one core for each.
const MOST: u64 = 40;

#[test]
fn ranks_and_progress_threads_that_wait_sleep() {
    for transport in ["local", "shm", "tcp"] {
        for blocking in [true, false] {
            let begun = std::sync::Mutex::new(0);
            ranks_over(transport, 4, |communicator| {
                // Everything is open, and every progress thread has run.
                let data = Buffer::from(vec![1.0f32; 1000]);
                communicator.start_all_reduce(data, ReduceOp::Sum).unwrap().wait().unwrap();
                communicator.barrier().unwrap();
                if communicator.rank() == 0 {
                    *begun.lock().unwrap() = processor_time();
                    std::thread::sleep(LATE);
                }
                match blocking {
                    true => communicator.barrier().unwrap(),
                    false => communicator.start_barrier().unwrap().wait().unwrap(),
                }
            });
            let burnt = processor_time() - *begun.lock().unwrap();
            assert!(burnt <= MOST, "{transport}, blocking {blocking}: {burnt}0 ms of processor time in 1 s");
        }
    }
}
