//! Fresh databases for tests: a SQLite file in a folder of its own, or a new database on the
//! PostgreSQL server that `scripts/test` starts. Either is gone when the [`TestDb`] is dropped.

#![expect(clippy::unwrap_used, reason = "tests")]

use nucleus::db::{Db, Limits, schema};
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection, Statement};
use tempfile::TempDir;
use url::Url;
use uuid::Uuid;

/// Where the PostgreSQL server is; its role must be allowed to make databases and roles.
const POSTGRES_URL: &str = "NUCLEUS_TEST_POSTGRES_URL";
/// The server gives connections five seconds to end before it refuses to remove a database; tried so often.
const TRIES_AT_REMOVAL: usize = 5;
/// Connections of a test's own pool. The server allows 100 in all, by default.
pub const CONNECTIONS: u32 = 8;

/// The databases that every test of the store runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// One database, its address, and a way to it past the code under test.
pub struct TestDb {
    pub db: Db,
    pub url: String,
    pub kind: Kind,
    raw: DatabaseConnection,
    _home: Home,
}

/// What is removed with a database.
enum Home {
    Folder(#[expect(dead_code, reason = "held for its end")] TempDir),
    Server(#[expect(dead_code, reason = "held for its end")] PostgresDatabase),
}

/// A PostgreSQL database in which there is nothing at all, not even schema `dna`. Dropping this
/// removes it, whoever is still connected.
pub struct PostgresDatabase {
    pub url: String,
}

impl TestDb {
    /// A SQLite file with the current schema.
    pub async fn sqlite() -> Self {
        Self::migrated(Kind::Sqlite).await
    }

    /// A PostgreSQL database with the current schema.
    pub async fn postgres() -> Self {
        Self::migrated(Kind::Postgres).await
    }

    async fn migrated(kind: Kind) -> Self {
        let test = Self::empty(kind).await;
        schema::migrate(&test.db, &test.url).await.unwrap();
        test
    }

    /// A database without tables. In PostgreSQL schema `dna` is there.
    pub async fn empty(kind: Kind) -> Self {
        let (url, home) = match kind {
            Kind::Sqlite => {
                let folder = TempDir::new().unwrap();
                (sqlite_url(&folder), Home::Folder(folder))
            }
            Kind::Postgres => {
                let database = PostgresDatabase::create().await;
                (database.url.clone(), Home::Server(database))
            }
        };
        Self {
            db: Db::connect(&url, Limits::of(CONNECTIONS)).await.unwrap(),
            raw: raw_connection(&url).await,
            url,
            kind,
            _home: home,
        }
    }

    /// Runs statements past the code under test.
    pub async fn sql(&self, sql: &str) {
        if let Err(error) = self.raw.execute_unprepared(sql).await {
            panic!("{error}: {sql}");
        }
    }

    /// The first column of every row, as text; `-` stands for NULL.
    pub async fn column(&self, sql: &str) -> Vec<String> {
        let statement = Statement::from_string(self.raw.get_database_backend(), sql);
        let rows = match self.raw.query_all_raw(statement).await {
            Ok(rows) => rows,
            Err(error) => panic!("{error}: {sql}"),
        };
        rows.into_iter()
            .map(|row| row.try_get_by_index::<Option<String>>(0).unwrap())
            .map(|text| text.unwrap_or_else(|| "-".to_owned()))
            .collect()
    }

    /// The first column of the only row, as a number.
    pub async fn number(&self, sql: &str) -> i64 {
        let statement = Statement::from_string(self.raw.get_database_backend(), sql);
        let row = self.raw.query_one_raw(statement).await.unwrap().unwrap();
        row.try_get_by_index(0).unwrap()
    }

    /// How many rows a table has.
    pub async fn count(&self, table: &str) -> i64 {
        self.number(&format!("SELECT count(*) FROM {table}")).await
    }
}

impl PostgresDatabase {
    pub async fn create() -> Self {
        let mut url = server();
        let name = format!("nucleus_test_{}", Uuid::now_v7().simple());
        let conn = Database::connect(ConnectOptions::new(url.as_str()))
            .await
            .unwrap();
        conn.execute_unprepared(&format!("CREATE DATABASE {name}"))
            .await
            .unwrap();
        conn.close().await.unwrap();
        url.set_path(&name);
        Self { url: url.into() }
    }
}

impl Drop for PostgresDatabase {
    /// Runs when a test unwinds, too, so it brings a thread and a runtime of its own.
    fn drop(&mut self) {
        let name = Url::parse(&self.url).unwrap().path()[1..].to_owned();
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let conn = Database::connect(ConnectOptions::new(server().as_str()))
                    .await
                    .unwrap();
                let remove = format!("DROP DATABASE {name} WITH (FORCE)");
                let mut removed = conn.execute_unprepared(&remove).await;
                for _ in 1..TRIES_AT_REMOVAL {
                    if removed.is_ok() {
                        break;
                    }
                    removed = conn.execute_unprepared(&remove).await;
                }
                removed.unwrap();
            });
        });
        if dropping.join().is_err() && !std::thread::panicking() {
            panic!("the test's database could not be removed");
        }
    }
}

/// Runs one body on a SQLite file and then on a PostgreSQL database, both with the current schema.
pub async fn both(body: impl AsyncFn(&TestDb)) {
    body(&TestDb::sqlite().await).await;
    body(&TestDb::postgres().await).await;
}

/// As [`both`], on databases without tables.
pub async fn both_empty(body: impl AsyncFn(&TestDb)) {
    body(&TestDb::empty(Kind::Sqlite).await).await;
    body(&TestDb::empty(Kind::Postgres).await).await;
}

/// A SQLite file in `folder`.
pub fn sqlite_url(folder: &TempDir) -> String {
    format!("sqlite:{}", folder.path().join("nucleus.db").display())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the server is named by who runs the tests"
)]
fn server() -> Url {
    let Ok(url) = std::env::var(POSTGRES_URL) else {
        panic!("{POSTGRES_URL} is not set: run scripts/test, which starts a server");
    };
    Url::parse(&url).unwrap()
}

async fn raw_connection(url: &str) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(2)
        .sqlx_logging(false)
        .set_schema_search_path("dna");
    Database::connect(options).await.unwrap()
}
