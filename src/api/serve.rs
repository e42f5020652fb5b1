//! Listening and leaving: takes connections in, keeps their number, and ends them when the process
//! ends.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper_util::{rt::TokioExecutor, server::conn::auto::Builder};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{Id, JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tower::Layer;
use tower_http::normalize_path::{NormalizePath, NormalizePathLayer};

use super::{
    connection::{self, Pulse},
    deadlines::Deadlines,
    router,
    stream::Leaving,
};
use crate::app::App;

/// Connections that are open at once. With the usual 1,024 file descriptors of a process as many are
/// left for the database, the services and files, and at 64 KB each of what hyper buffers they hold
/// 32 MB.
const MAX_CONNECTIONS: usize = 512;
/// When all are taken and none can be spared, it is looked again after this long.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The pause after the operating system could not give a connection, for want of file descriptors
/// or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// Connections without a request that are ended then.
const SPARED_IN_NEED: usize = 16;

/// Serves until `shutdown`; requests under way are answered first, as far as that takes no longer
/// than the grace.
pub async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    deadlines: Deadlines,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let public_url = match &app.public_url {
        Some(url) => url.to_string(),
        None => format!("http://{}", listener.local_addr()?),
    };
    let router = router(app, &public_url)
        .layer(Extension(Leaving(shutdown.clone())))
        .layer(Extension(deadlines));
    let mut open = Connections {
        // Around the router, because a path is matched before the router's own layers see it.
        service: NormalizePathLayer::trim_trailing_slash().layer(router),
        builder: Arc::new(connection::protocol()),
        deadlines,
        tasks: JoinSet::new(),
        pulses: HashMap::new(),
        is_making_room: false,
        is_full: false,
    };
    let mut newcomer = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(ended) = open.tasks.join_next_with_id() => open.forget(ended),
            accepted = listener.accept(), if newcomer.is_none() => match accepted {
                Ok(accepted) => newcomer = Some(accepted),
                Err(error) => open.not_accepted(&error).await,
            },
            () = pause(LOOK_AGAIN), if newcomer.is_some() => open.is_making_room = false,
        }
        if newcomer.is_some()
            && open.has_room()
            && let Some((stream, peer)) = newcomer.take()
        {
            open.take_in(stream, peer, shutdown.child_token());
        }
    }
    drop(listener);
    let all_ended = async { while open.tasks.join_next().await.is_some() {} };
    if timeout(deadlines.grace, all_ended).await.is_err() {
        tracing::warn!(
            connections = open.tasks.len(),
            "requests were cut off, because they took too long"
        );
    }
    Ok(())
}

/// Every open connection; dropped, they are cut.
struct Connections {
    service: NormalizePath<Router>,
    builder: Arc<Builder<TokioExecutor>>,
    deadlines: Deadlines,
    tasks: JoinSet<()>,
    pulses: HashMap<Id, Arc<Pulse>>,
    /// One was told to end and has not done so yet.
    is_making_room: bool,
    /// It was said that none can be spared.
    is_full: bool,
}

impl Connections {
    fn take_in(&mut self, stream: TcpStream, peer: SocketAddr, closing: CancellationToken) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = %error, "a connection was gone at once");
            return;
        }
        let pulse = Pulse::new(self.deadlines, closing);
        let (service, builder) = (self.service.clone(), Arc::clone(&self.builder));
        let watched = Arc::clone(&pulse);
        let task = self.tasks.spawn(async move {
            connection::converse(stream, peer, &builder, service, &watched).await;
        });
        self.pulses.insert(task.id(), pulse);
    }

    fn forget(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!(error = %error, "a connection's task failed");
                error.id()
            }
        };
        self.pulses.remove(&id);
        self.is_making_room = false;
    }

    /// Whether one more fits. Where it does not, the connection that has been without a request the
    /// longest is ended for it; with a request under way on all of them, the newcomer waits.
    fn has_room(&mut self) -> bool {
        if self.pulses.len() < MAX_CONNECTIONS {
            self.is_full = false;
            return true;
        }
        if !self.is_making_room {
            self.is_making_room = true;
            self.spare_one();
        }
        false
    }

    fn spare_one(&mut self) {
        let spared = self
            .pulses
            .values()
            .filter(|pulse| !pulse.closing.is_cancelled())
            .filter_map(|pulse| Some((pulse.quiet_since()?, pulse)))
            .min_by_key(|(since, _)| *since);
        match spared {
            Some((_, pulse)) => pulse.closing.cancel(),
            None if self.is_full => {}
            None => {
                self.is_full = true;
                tracing::warn!(
                    connections = self.pulses.len(),
                    "no connection can be taken in: requests are under way on all that are open"
                );
            }
        }
    }

    async fn not_accepted(&mut self, error: &io::Error) {
        // The client was gone before it was its turn.
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionRefused
        ) {
            return;
        }
        tracing::error!(error = %error, "a connection could not be accepted");
        for _ in 0..SPARED_IN_NEED {
            self.spare_one();
        }
        pause(ACCEPT_PAUSE).await;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the operating system is waited for on the machine's clock"
)]
async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}
