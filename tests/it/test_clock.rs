//! Time in a test: nobody waits for it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use nucleus::domain::{Clock, clock::to_microseconds};

/// A clock that jumps to the end of every wait.
pub struct TestClock(Mutex<DateTime<Utc>>);

impl TestClock {
    pub fn new() -> Arc<Self> {
        Self::at(Utc::now())
    }

    pub fn at(time: DateTime<Utc>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(to_microseconds(time))))
    }

    pub fn advance(&self, by: TimeDelta) {
        *self.0.lock().unwrap() += by;
    }

    /// As when somebody corrects the machine's clock: what was is still to come.
    pub fn set_back(&self, by: TimeDelta) {
        *self.0.lock().unwrap() -= by;
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap()
    }

    async fn sleep(&self, duration: Duration) {
        let end = self.now() + TimeDelta::from_std(duration).unwrap();
        {
            let mut now = self.0.lock().unwrap();
            *now = (*now).max(end);
        }
        // Whoever waits lets the others work.
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }
}
