//! A PostgreSQL server of a test's own, to be configured, stopped without warning and started again.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::port::Port;

/// What every such server has; a test adds its own lines.
const CONFIGURATION: &str = "
    listen_addresses = '127.0.0.1'
    fsync = off
    max_connections = 60
";

/// A server that is running, but for where a test has stopped it. Dropping it ends it.
pub struct PostgresServer {
    pub port: u16,
    _port: Port,
    pub password: String,
    folder: TempDir,
}

impl PostgresServer {
    /// Starts one with these lines of `postgresql.conf`, after `prepare` has put what they name into the
    /// server's folder.
    pub fn start(configuration: &str, prepare: impl FnOnce(&PathBuf)) -> Self {
        // Not under TMPDIR: the path of a Unix socket holds about a hundred bytes.
        let folder = tempfile::Builder::new()
            .prefix("nucleus-pg.")
            .tempdir_in("/tmp")
            .unwrap();
        // Its own through every stop.
        let port = Port::reserve();
        let server = Self {
            port: port.number(),
            _port: port,
            password: uuid::Uuid::now_v7().simple().to_string(),
            folder,
        };
        fs::write(server.file("password"), &server.password).unwrap();
        server.give_away();
        let password = server.file("password");
        server.run(
            "initdb",
            &[
                "--username=nucleus",
                &format!("--pwfile={}", password.display()),
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
            ],
        );
        prepare(&server.folder.path().to_owned());
        let mut written = fs::read_to_string(server.file("data/postgresql.conf")).unwrap();
        written.push_str(CONFIGURATION);
        written.push_str(&format!(
            "unix_socket_directories = '{}'\n",
            server.folder.path().display()
        ));
        written.push_str(&format!("port = {}\n{configuration}", server.port));
        fs::write(server.file("data/postgresql.conf"), written).unwrap();
        server.give_away();
        server.start_again();
        server
    }

    /// A file in the server's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The address of its one database, over TCP.
    pub fn url(&self) -> String {
        let Self { port, password, .. } = self;
        format!("postgres://nucleus:{password}@127.0.0.1:{port}/postgres")
    }

    /// Ends every process of it at once: nothing is finished, flushed or said to anybody.
    pub fn stop_at_once(&self) {
        self.run("pg_ctl", &["-m", "immediate", "-w", "stop"]);
    }

    /// Starts it and waits until it takes connections.
    pub fn start_again(&self) {
        let log = self.file("log");
        self.run(
            "pg_ctl",
            &["-w", "-t", "60", "-l", &log.display().to_string(), "start"],
        );
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.command(program, arguments);
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {output:?}, {}",
            fs::read_to_string(self.file("log")).unwrap_or_default()
        );
    }

    /// Runs one of the server's programs on its data, as whom the server runs as: PostgreSQL refuses
    /// to be root.
    fn command(&self, program: &str, arguments: &[&str]) -> Output {
        let program = PathBuf::from(variable("NUCLEUS_TEST_POSTGRES_BIN")).join(program);
        let mut command = match is_root() {
            true => {
                let mut command = Command::new("runuser");
                let user = variable("NUCLEUS_TEST_POSTGRES_USER");
                command.args(["-u", &user, "--"]).arg(program);
                command
            }
            false => Command::new(program),
        };
        command.arg("-D").arg(self.file("data")).args(arguments);
        // A server that inherited a pipe would keep whoever reads it from ending.
        command
            .stdout(fs::File::create(self.file("output")).unwrap())
            .stderr(fs::File::create(self.file("errors")).unwrap())
            .current_dir(self.folder.path());
        let status = command.status().unwrap();
        Output {
            status,
            stdout: fs::read(self.file("output")).unwrap(),
            stderr: fs::read(self.file("errors")).unwrap(),
        }
    }

    /// Lets the server's user have all that is in the folder.
    fn give_away(&self) {
        if is_root() {
            let user = variable("NUCLEUS_TEST_POSTGRES_USER");
            let mut command = Command::new("chown");
            command.arg("-R").arg(user).arg(self.folder.path());
            assert!(command.status().unwrap().success());
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // It may be stopped already.
        let _ = self.command("pg_ctl", &["-m", "immediate", "-w", "stop"]);
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn variable(name: &str) -> String {
    let Ok(value) = std::env::var(name) else {
        panic!("{name} is not set: run scripts/test, which finds a server");
    };
    value
}
