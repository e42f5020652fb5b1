//! Which loops a process is to run, and whether they do: a process whose worker has died answers
//! requests and syncs nothing, so it must not be called ready.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The loops of one process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Loops(Arc<Mutex<BTreeMap<&'static str, State>>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Running,
    Ended,
}

/// Ends with its loop, whether that returned, panicked or was dropped.
struct Running {
    loops: Loops,
    name: &'static str,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.loops.set(self.name, State::Ended);
    }
}

impl Loops {
    /// `work` as a loop of this process: from now on the process is to run it.
    pub fn watch<W: Future>(
        &self,
        name: &'static str,
        work: W,
    ) -> impl Future<Output = W::Output> + use<W> {
        self.set(name, State::Starting);
        let loops = self.clone();
        async move {
            loops.set(name, State::Running);
            let _running = Running { loops, name };
            work.await
        }
    }

    /// Each loop, and whether it runs.
    pub fn running(&self) -> Vec<(&'static str, bool)> {
        let states = self.states();
        let running = |(name, state): (&&'static str, &State)| (*name, *state == State::Running);
        states.iter().map(running).collect()
    }

    /// What is wrong, if something is.
    pub fn check(&self) -> Result<(), String> {
        for (name, state) in self.states().iter() {
            match state {
                State::Running => {}
                State::Starting => return Err(format!("the {name} has not started yet")),
                State::Ended => return Err(format!("the {name} has ended: restart the process")),
            }
        }
        Ok(())
    }

    fn set(&self, name: &'static str, state: State) {
        self.states().insert(name, state);
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<&'static str, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_loop_starts_when_it_is_polled_and_ends_when_it_is_gone() {
        let loops = Loops::default();
        assert_eq!(loops.check(), Ok(()));
        let mut work = Box::pin(loops.watch("worker", std::future::pending::<()>()));
        assert_eq!(
            loops.check(),
            Err("the worker has not started yet".to_owned())
        );
        assert!(work.as_mut().now_or_never().is_none());
        assert_eq!(loops.check(), Ok(()));
        assert_eq!(loops.running(), [("worker", true)]);
        drop(work);
        assert!(loops.check().unwrap_err().contains("the worker has ended"));
        assert_eq!(loops.running(), [("worker", false)]);
    }

    #[test]
    fn a_loop_that_panics_has_ended() {
        let loops = Loops::default();
        let work = loops.watch("scheduler", async { panic!("as a test wants it") });
        let work = std::panic::AssertUnwindSafe(work).catch_unwind();
        assert!(work.now_or_never().is_some_and(|ended| ended.is_err()));
        assert!(loops.check().is_err());
    }
}
