//! A bad network between the program and a service: slow, narrow, reset in mid answer, silent. A run
//! ends all the same, loses and doubles nothing, and no connection stays behind.

use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use nucleus::demo::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::{
    child::{PATIENCE, in_time, moment},
    doubles::{mail, small_mailbox},
    harness::{Setting, TestApp},
};

/// Sockets to a service that are kept at most, however long the program runs: eight calls are under way
/// at once, for each the HTTP client may have dialled although another connection became free
/// meanwhile, and the token endpoint has its own. Of what a round breaks four would be left at least.
const SOCKETS: usize = 2 * 8 + 1;

/// What the network is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    /// Each piece of an answer takes its time.
    Slow,
    /// A kilobyte a second.
    Narrow,
    /// Answers are cut in the middle of their body, and the connection is reset.
    Reset,
    /// Takes everything and says nothing. Connections that were swallowed end with the mode.
    Silent,
}

/// A TCP proxy, whose mode may change at any time; connections that stand feel it as well.
struct Proxy {
    port: u16,
    service: Arc<OnceLock<String>>,
    mode: watch::Sender<Mode>,
    /// Connections that were swallowed, and those that the program closed while they were.
    silence: watch::Sender<(usize, usize)>,
}

impl Proxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let service = Arc::<OnceLock<String>>::default();
        let mode = watch::Sender::new(Mode::Pass);
        let silence = watch::Sender::new((0, 0));
        let (to, modes, counts) = (service.clone(), mode.clone(), silence.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let to = to.get().unwrap().clone();
                let (mode, counts) = (modes.subscribe(), counts.clone());
                // An error is the end of the connection, on either side.
                tokio::spawn(async move { carry(client, &to, mode, &counts).await });
            }
        });
        Self {
            port,
            service,
            mode,
            silence,
        }
    }

    fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// The sockets of the program to this proxy that somebody holds, whatever their state.
    fn sockets(&self) -> usize {
        let remote = format!("0100007F:{:04X}", self.port);
        let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|fields| fields[2] == remote && fields[9] != "0")
            .count()
    }
}

async fn carry(
    mut client: TcpStream,
    to: &str,
    mut mode: watch::Receiver<Mode>,
    silence: &watch::Sender<(usize, usize)>,
) -> io::Result<()> {
    let mut service = TcpStream::connect(to).await?;
    let (mut asked, mut answered) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    loop {
        let current = *mode.borrow_and_update();
        if current == Mode::Silent {
            silence.send_modify(|(swallowed, _)| *swallowed += 1);
            tokio::select! {
                _ = mode.wait_for(|mode| *mode != Mode::Silent) => {}
                () = until_closed(&mut client) => silence.send_modify(|(_, closed)| *closed += 1),
            }
            return Ok(());
        }
        tokio::select! {
            changed = mode.changed() => if changed.is_err() { return Ok(()) },
            read = client.read(&mut asked) => match read? {
                0 => return Ok(()),
                length => service.write_all(&asked[..length]).await?,
            },
            read = service.read(&mut answered) => match read? {
                0 => return Ok(()),
                length => deliver(&mut client, &answered[..length], current).await?,
            },
        }
    }
}

async fn deliver(client: &mut TcpStream, answer: &[u8], mode: Mode) -> io::Result<()> {
    match mode {
        Mode::Slow => {
            moment(Duration::from_millis(30)).await;
            client.write_all(answer).await
        }
        Mode::Narrow => {
            for piece in answer.chunks(1024) {
                client.write_all(piece).await?;
                moment(Duration::from_millis(1000 * piece.len() as u64 / 1024)).await;
            }
            Ok(())
        }
        Mode::Reset => {
            let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
            let body = head.map_or(0, |at| at + 4);
            client
                .write_all(&answer[..body + (answer.len() - body) / 2])
                .await?;
            client.set_zero_linger()?;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Mode::Pass | Mode::Silent => client.write_all(answer).await,
    }
}

async fn until_closed(client: &mut TcpStream) {
    let mut bytes = [0; 4096];
    while client.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
}

/// The program with a mailbox, which reaches the service through a proxy alone.
async fn start(messages: u64) -> (TestApp, Proxy, String) {
    let proxy = Proxy::start().await;
    let url = format!("http://127.0.0.1:{}", proxy.port);
    let app = Setting::new(small_mailbox(messages))
        .variable("NUCLEUS_SERVICES__GMAIL__API_URL", url.clone())
        .variable("NUCLEUS_SERVICES__GMAIL__TOKEN_URL", format!("{url}/token"))
        .start()
        .await;
    let base = app.google.base_url();
    assert_eq!(app.google.token_url(), format!("{base}/token"));
    let address = base.strip_prefix("http://").unwrap().to_owned();
    proxy.service.set(address).unwrap();
    let id = app.connect().await;
    (app, proxy, id)
}

/// Asks for a run and has the network change while messages are fetched; gives the run's id.
async fn change_in_mid_run(app: &TestApp, proxy: &Proxy, id: &str, mode: Mode) -> String {
    let before = app.google.served(Method::MessagesGet);
    app.google.hold(Method::MessagesGet);
    let run = app.request_sync(id).await;
    let changing = async {
        app.google.wait_for_held(Method::MessagesGet, 4).await;
        let swallowed = proxy.silence.borrow().0;
        proxy.set(mode);
        app.google.release(Method::MessagesGet);
        if mode == Mode::Silent {
            let mut silence = proxy.silence.subscribe();
            silence
                .wait_for(|(now, _)| *now >= swallowed + 4)
                .await
                .unwrap();
            proxy.set(Mode::Pass);
        }
    };
    in_time(PATIENCE, async { tokio::join!(app.drain(), changing) }).await;
    assert!(app.google.served(Method::MessagesGet) >= before + 4);
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_and_a_narrow_line_only_make_a_sync_longer() {
    const MESSAGES: usize = 6;
    for mode in [Mode::Slow, Mode::Narrow] {
        let (app, proxy, id) = start(MESSAGES as u64).await;
        proxy.set(mode);
        let begin = app.real_time();
        let run = in_time(PATIENCE, app.sync(&id)).await;
        assert_eq!(run["status"], "success", "{mode:?}: {run}");
        // A token, the profile, a list and a message follow each other, each through that line.
        assert!(app.real_time() - begin >= Duration::from_millis(120));
        assert_eq!(app.calls(Method::MessagesGet), MESSAGES, "{mode:?}");
        app.assert_matches_ledger(&id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_network_does_in_mid_run_nothing_is_lost_and_no_connection_stays() {
    let (app, proxy, id) = start(12).await;
    app.sync_until_success(&id, 1).await;
    let mut serial = 0;
    let mut sockets = Vec::new();
    for round in 1..=4 {
        for mode in [Mode::Reset, Mode::Silent, Mode::Slow] {
            app.google.with_mailbox(|mailbox| {
                for _ in 0..12 {
                    serial += 1;
                    mailbox.deliver(mail(serial), &["INBOX"]);
                }
            });
            let run = change_in_mid_run(&app, &proxy, &id, mode).await;
            let run = app.get(&format!("/runs/{run}")).await;
            match mode {
                // It never ends, so the run does.
                Mode::Reset => {
                    assert_eq!(run["status"], "failed", "{run}");
                    assert_eq!(run["error"]["code"], "unavailable", "{run}");
                }
                _ => assert_eq!(run["status"], "success", "{mode:?}: {run}"),
            }
            assert_eq!(app.integration(&id).await["status"], "active");
            proxy.set(Mode::Pass);
            app.sync_until_success(&id, 2).await;
            app.assert_matches_ledger(&id).await;
            let open = proxy.sockets();
            assert!(open > 0, "the table of sockets shows none of ours");
            assert!(
                open <= SOCKETS,
                "{mode:?}, round {round}: {open} sockets after {sockets:?}"
            );
            sockets.push(open);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_token_endpoint_is_left_after_its_deadline() {
    let (app, proxy, id) = start(3).await;
    proxy.set(Mode::Silent);
    let run = app.request_sync(&id).await;
    let healing = async {
        let mut silence = proxy.silence.subscribe();
        // The program itself lets go; the network is as silent as before.
        silence.wait_for(|(_, closed)| *closed >= 1).await.unwrap();
        proxy.set(Mode::Pass);
    };
    in_time(PATIENCE, async { tokio::join!(app.drain(), healing) }).await;
    let run = app.get(&format!("/runs/{run}")).await;
    assert_eq!(run["status"], "success", "{run}");
    assert_eq!(app.calls(Method::Token), 1);
    assert_eq!(app.integration(&id).await["status"], "active");
    app.assert_matches_ledger(&id).await;
}
