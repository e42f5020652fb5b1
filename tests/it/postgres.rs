//! PostgreSQL as it stands in production: over a Unix socket and over TLS, under roles that may do
//! little, with settings that lose what they say they keep.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use nucleus::{
    db::{Db, DbError, Limits, schema},
    demo::generate,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::{
    child::World, db::PostgresDatabase, postgres_server::PostgresServer,
    store::migrations::PLATFORM,
};

/// What NUCLEUS asks for, to see that the change of schema is there.
const PLATFORMS_CHECK: [&str; 2] = [
    "SELECT count(*) FROM public.migrations WHERE version = '002'",
    "SELECT count(*) FROM dna.entity_integrations",
];

async fn run_sql(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(conn)
        .await
        .unwrap_or_else(|error| panic!("{error}: {sql}"));
}

async fn number(conn: &mut PgConnection, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_one(conn)
        .await
        .unwrap_or_else(|error| panic!("{error}: {sql}"))
}

/// An authority in `ca.pem`, another in `other.pem`, and a certificate of the first for `localhost`.
fn write_certificates(folder: &Path) {
    let authority = || {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let (ca, other) = (authority(), authority());
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &ca)
        .unwrap();
    for (name, text) in [
        ("ca.pem", ca.pem()),
        ("other.pem", other.pem()),
        ("server.pem", certificate.pem()),
        ("server.key", key.serialize_pem()),
    ] {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }
    // Over TCP there is nothing without TLS.
    let access = "local all all scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
    fs::write(folder.join("data/pg_hba.conf"), access).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn cloud_sql_s_socket_and_tls_over_tcp_lead_to_the_database() {
    let server = PostgresServer::start(
        "ssl = on\nssl_cert_file = '../server.pem'\nssl_key_file = '../server.key'\n",
        |folder| write_certificates(folder),
    );
    let PostgresServer { port, password, .. } = &server;
    let mut world = World::embedded(generate::bench_mailbox(5, 600)).await;

    // As Cloud Run has it: a folder with the instance's name, in it the socket of the usual port.
    let folder = server.file("cloudsql/project:region:instance");
    fs::create_dir_all(&folder).unwrap();
    symlink(
        server.file(&format!(".s.PGSQL.{port}")),
        folder.join(".s.PGSQL.5432"),
    )
    .unwrap();
    let socket = format!(
        "postgres://nucleus:{password}@/postgres?host={}",
        folder.display()
    );
    world.set("NUCLEUS_DATABASE__URL", &socket);
    let pending = world.run(&["migrate", "--status"]).await.ok();
    assert!(pending.contains("pending  m001_baseline"), "{pending}");
    assert!(!pending.contains("applied"), "{pending}");
    world.run(&["migrate"]).await.ok();
    let applied = world.run(&["migrate", "--status"]).await.ok();
    assert!(
        applied.contains("applied  m002_entity_integrations"),
        "{applied}"
    );
    assert!(!applied.contains("pending"), "{applied}");

    let tcp = |host: &str, rest: &str| {
        format!("postgres://nucleus:{password}@{host}:{port}/postgres?{rest}")
    };
    let ca = server.file("ca.pem").display().to_string();
    let other = server.file("other.pem").display().to_string();
    for (url, wrong) in [
        (
            tcp(
                "localhost",
                &format!("sslmode=verify-full&sslrootcert={ca}"),
            ),
            None,
        ),
        (
            tcp("127.0.0.1", &format!("sslmode=verify-ca&sslrootcert={ca}")),
            None,
        ),
        (tcp("localhost", "sslmode=require"), None),
        (tcp("localhost", "sslmode=disable"), Some("no encryption")),
        (
            tcp(
                "127.0.0.1",
                &format!("sslmode=verify-full&sslrootcert={ca}"),
            ),
            Some("certificate"),
        ),
        (
            tcp(
                "localhost",
                &format!("sslmode=verify-ca&sslrootcert={other}"),
            ),
            Some("certificate"),
        ),
    ] {
        world.set("NUCLEUS_DATABASE__URL", &url);
        let told = world.run(&["migrate", "--status"]).await;
        match wrong {
            None => assert_eq!(told.ok(), applied, "{url}"),
            Some(word) => told.assert_fails(1, &["the database cannot be opened", word]),
        }
    }

    // The whole program, over TLS.
    let url = tcp(
        "localhost",
        &format!("sslmode=verify-full&sslrootcert={ca}"),
    );
    world.set("NUCLEUS_DATABASE__URL", &url);
    let up = world.listen("up").await;
    let integration = up.api.connect(&world).await;
    let run = up.api.sync(&integration).await;
    assert_eq!(up.api.ended(&run).await["status"], "success");
    let mut conn = PgConnection::connect(&tcp("localhost", "sslmode=require"))
        .await
        .unwrap();
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                     WHERE ssl AND datname = current_database() AND pid <> pg_backend_pid()";
    assert!(number(&mut conn, encrypted).await > 0);
    for check in PLATFORMS_CHECK {
        assert_eq!(number(&mut conn, check).await, 1, "{check}");
    }
    up.stop().await;
}

/// A role that may only connect, and the address by which it does.
async fn bare_role(database: &PostgresDatabase, conn: &mut PgConnection) -> (String, String) {
    let role = format!("nucleus_{}", uuid::Uuid::now_v7().simple());
    run_sql(
        conn,
        &format!("CREATE ROLE {role} LOGIN PASSWORD 'only-here'"),
    )
    .await;
    let mut url = url::Url::parse(&database.url).unwrap();
    url.set_username(&role).unwrap();
    url.set_password(Some("only-here")).unwrap();
    (role, url.into())
}

async fn migrate(url: &str) -> Result<(), DbError> {
    let db = Db::connect(url, Limits::of(2)).await?;
    schema::migrate(&db, url).await?;
    schema::status(&db).await?.check()?;
    db.close().await
}

/// The statements that a refusal says to run.
fn mend(refused: Result<(), DbError>) -> String {
    let Err(DbError::Unfit(text)) = refused else {
        panic!("{refused:?}");
    };
    let statement = text.split('`').nth(1);
    statement
        .unwrap_or_else(|| panic!("no statement in {text}"))
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_lacks_rights_is_told_the_statements_that_give_them() {
    for platform in ["", PLATFORM] {
        let database = PostgresDatabase::create().await;
        let mut conn = PgConnection::connect(&database.url).await.unwrap();
        let (role, url) = bare_role(&database, &mut conn).await;
        if !platform.is_empty() {
            run_sql(&mut conn, platform).await;
        }
        // Each refusal is mended as it says. On an empty database the schema comes first.
        let mut mends = Vec::new();
        while mends.len() < 4 {
            let refused = migrate(&url).await;
            if refused.is_ok() {
                break;
            }
            let statement = mend(refused);
            run_sql(&mut conn, &statement).await;
            mends.push(statement);
        }
        for check in PLATFORMS_CHECK {
            number(&mut conn, check).await;
        }
        run_sql(
            &mut conn,
            &format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"),
        )
        .await;
        let told = mends.join("\n");
        let expected: &[&str] = match platform.is_empty() {
            true => &["GRANT CREATE ON DATABASE", "GRANT CREATE ON SCHEMA public"],
            false => &[
                "GRANT USAGE, CREATE ON SCHEMA dna",
                "GRANT SELECT, INSERT, DELETE ON public.migrations",
                "ALTER TABLE dna.entity OWNER TO",
                "ALTER TABLE dna.raw_data OWNER TO",
            ],
        };
        for statement in expected {
            assert!(told.contains(statement), "{statement}: {told}");
        }
        // All that is missing is told at once, but for what lies in a schema that is not there yet.
        assert_eq!(
            mends.len(),
            if platform.is_empty() { 2 } else { 1 },
            "{told}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_may_lose_commits_or_takes_none_is_refused_with_a_mend() {
    let database = PostgresDatabase::create().await;
    let mut conn = PgConnection::connect(&database.url).await.unwrap();
    migrate(&database.url).await.unwrap();
    let (role, url) = bare_role(&database, &mut conn).await;
    run_sql(&mut conn, &format!("GRANT USAGE ON SCHEMA dna TO {role}")).await;
    let name = database.url.rsplit('/').next().unwrap().to_owned();

    run_sql(
        &mut conn,
        &format!("ALTER DATABASE {name} SET synchronous_commit = off"),
    )
    .await;
    let statement = mend(Db::connect(&url, Limits::of(1)).await.map(drop));
    assert!(statement.contains("synchronous_commit = on"), "{statement}");
    run_sql(&mut conn, &statement).await;
    let mended = Db::connect(&url, Limits::of(1)).await.map(drop);

    run_sql(
        &mut conn,
        &format!("ALTER DATABASE {name} SET default_transaction_read_only = on"),
    )
    .await;
    let read_only = Db::connect(&url, Limits::of(1)).await.map(drop);
    run_sql(
        &mut conn,
        &format!("DROP OWNED BY {role}; DROP ROLE {role}"),
    )
    .await;
    mended.unwrap();
    let text = read_only.unwrap_err().to_string();
    assert!(text.contains("takes no writes"), "{text}");
}
