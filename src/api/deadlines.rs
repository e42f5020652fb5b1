//! How long the server waits, and for whom. The program's own are the defaults; tests of waiting give
//! the server shorter ones.

use std::time::Duration;

/// How long the server waits.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// A request's head must have arrived by then, from its first byte; and the first one of a
    /// connection from the connection's begin.
    pub head: Duration,
    /// A body must have arrived by then.
    pub body: Duration,
    /// A request must have been answered by then; what changes something goes on all the same.
    pub answer: Duration,
    /// A connection may rest so long between two requests. Google's load balancers keep theirs for
    /// 600 s, and a server that lets go first costs them an answer now and then:
    /// <https://cloud.google.com/load-balancing/docs/https#timeout-keepalive-backends>
    pub rest: Duration,
    /// A client may take nothing of what is written to it for so long.
    pub stall: Duration,
    /// After the last answer the client is listened to for so long, so that it comes to read the
    /// answer although it is still sending; what it sends is thrown away.
    pub linger: Duration,
    /// A stream of events carries a comment after so long without an event, so that nobody between
    /// takes it for dead.
    pub comment: Duration,
    /// A request that repeats one that is being carried out waits so long for its answer.
    pub repeat: Duration,
    /// What is under way at the server's end may take so long; within what the process gives all its
    /// parts.
    pub grace: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            body: Duration::from_secs(15),
            answer: Duration::from_secs(30),
            rest: Duration::from_secs(620),
            stall: Duration::from_secs(30),
            linger: Duration::from_secs(2),
            comment: Duration::from_secs(15),
            repeat: Duration::from_secs(10),
            grace: Duration::from_secs(5),
        }
    }
}
