//! Random bytes fit for keys, from the system, which is asked for some at a time: a call needs a few of them six times, and
//! on a virtual machine each system call costs microseconds.
//!
//! Each thread holds its own, so that nobody waits. What was handed out is wiped. A child has none of them: nothing here forks
//! without running another program.

use std::cell::RefCell;

use zeroize::{Zeroize as _, Zeroizing};

use crate::port::NoRandomnessError;

/// How many bytes the system is asked for at once.
const HELD: usize = 1024;

struct Held {
    bytes: Zeroizing<[u8; HELD]>,
    /// How many of the first ones are still to be handed out.
    left: usize,
}

thread_local! {
    static OURS: RefCell<Held> = RefCell::new(Held { bytes: Zeroizing::new([0; HELD]), left: 0 });
}

/// Fills the bytes with random ones.
///
/// # Errors
/// The system gives none; then these must not be used.
pub fn fill(to: &mut [u8]) -> Result<(), NoRandomnessError> {
    if to.len() > HELD {
        return ask(to);
    }
    OURS.with_borrow_mut(|held| {
        if held.left < to.len() {
            held.left = 0;
            ask(&mut *held.bytes)?;
            held.left = HELD;
        }
        held.left -= to.len();
        let taken = held.bytes.get_mut(held.left..).and_then(|rest| rest.get_mut(..to.len()));
        let taken = taken.ok_or(NoRandomnessError)?;
        to.copy_from_slice(taken);
        taken.zeroize();
        Ok(())
    })
}

fn ask(to: &mut [u8]) -> Result<(), NoRandomnessError> {
    getrandom::fill(to).map_err(|_source| NoRandomnessError)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Across the borders of what is held, of every length, and in several threads at once.
    #[test]
    fn no_bytes_are_handed_out_twice() {
        let drawn = || -> Vec<Vec<u8>> {
            let lengths = (16..200).chain([HELD - 1, HELD, HELD + 1, 16, 32]);
            lengths
                .map(|length| {
                    let mut bytes = vec![0; length];
                    fill(&mut bytes).unwrap();
                    bytes
                })
                .collect()
        };
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(drawn)).collect();
        let all: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        let windows: HashSet<&[u8]> = all.iter().flat_map(|bytes| bytes.windows(16)).collect();
        assert_eq!(windows.len(), all.iter().map(|bytes| bytes.len() - 15).sum::<usize>());
    }

    #[test]
    fn what_was_handed_out_is_wiped() {
        let mut bytes = [0; 48];
        fill(&mut bytes).unwrap();
        OURS.with_borrow(|held| {
            assert_eq!(held.bytes[held.left..][..48], [0; 48]);
            assert!(!held.bytes.windows(48).any(|window| window == bytes));
        });
    }
}
