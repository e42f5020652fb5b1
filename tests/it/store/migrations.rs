//! The schema: up, down and up again, beside the platform's own tables, by many at once.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use migration::{Migrator, MigratorTrait};
use nucleus::{
    db::{
        Db, DbError, Limits, raw_data,
        schema::{self, SchemaStatus},
    },
    domain::sync::Scope,
};

use sea_orm::{ConnectOptions, Database};
use uuid::Uuid;

use super::super::db::{Kind, PostgresDatabase, TestDb, both, both_empty, sqlite_url};

/// What the platform's first migration makes, with rows, and tables of schema `dna` that belong to
/// others.
pub const PLATFORM: &str = "
    CREATE SCHEMA IF NOT EXISTS dna;
    CREATE TABLE public.migrations (version varchar(10) PRIMARY KEY, description text,
        executed_at timestamptz DEFAULT now());
    INSERT INTO public.migrations (version, description) VALUES ('001', 'create dna schema');
    CREATE TABLE dna.entity (id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        name varchar(255) NOT NULL, created_at timestamptz DEFAULT now(),
        updated_at timestamptz DEFAULT now());
    CREATE TABLE dna.raw_data (id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        entity_id uuid NOT NULL REFERENCES dna.entity (id) ON DELETE CASCADE,
        data_type varchar(100) NOT NULL, data_content text NOT NULL, meta_data jsonb,
        ingested_at timestamptz DEFAULT now());
    CREATE INDEX idx_raw_data_entity ON dna.raw_data (entity_id);
    CREATE TABLE dna.interests (id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        entity_id uuid REFERENCES dna.entity (id) ON DELETE CASCADE, name text);
    CREATE TABLE dna.goals (id serial PRIMARY KEY, goal text NOT NULL);
    CREATE TABLE dna.values (id serial PRIMARY KEY, value jsonb);
    INSERT INTO dna.entity (id, name) VALUES ('00000000-0000-4000-8000-000000000001', 'Ada');
    INSERT INTO dna.raw_data (id, entity_id, data_type, data_content, meta_data) VALUES
        ('00000000-0000-4000-8000-000000000002', '00000000-0000-4000-8000-000000000001', 'note',
         'older than nucleus', '{\"a\": 1}');
    INSERT INTO dna.interests (entity_id, name)
        VALUES ('00000000-0000-4000-8000-000000000001', 'engines');
    INSERT INTO dna.goals (goal) VALUES ('compute');
    INSERT INTO dna.values (value) VALUES ('[1, 2]')";

const PLATFORM_ROWS: [&str; 6] = [
    "SELECT version || description || executed_at FROM public.migrations WHERE version = '001'",
    "SELECT id::text || name || created_at || updated_at FROM dna.entity",
    "SELECT id::text || entity_id || data_type || data_content || meta_data || ingested_at
     FROM dna.raw_data WHERE data_type = 'note'",
    "SELECT id::text || entity_id || name FROM dna.interests",
    "SELECT id || goal FROM dna.goals",
    "SELECT id || value::text FROM dna.values",
];

/// Every table, column and index, but for the list of changes that SeaORM keeps.
async fn shape(test: &TestDb) -> Vec<String> {
    let sql = match test.kind {
        Kind::Sqlite => {
            "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_master
             WHERE name NOT LIKE '%seaql_migrations%' ORDER BY 1"
        }
        Kind::Postgres => {
            "SELECT concat_ws(' ', table_schema, table_name, column_name, data_type,
                character_maximum_length, is_nullable, column_default) AS line
             FROM information_schema.columns
             WHERE table_schema IN ('dna', 'public') AND table_name <> 'seaql_migrations'
             UNION ALL
             SELECT indexdef FROM pg_indexes
             WHERE schemaname IN ('dna', 'public') AND tablename <> 'seaql_migrations'
             UNION ALL
             SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
             FROM pg_constraint
             WHERE conrelid <> 0 AND connamespace IN ('dna'::regnamespace, 'public'::regnamespace)
                AND conname NOT LIKE 'seaql_migrations%'
             ORDER BY line"
        }
    };
    test.column(sql).await
}

fn migrations_table(test: &TestDb) -> &'static str {
    match test.kind {
        Kind::Sqlite => "migrations",
        Kind::Postgres => "public.migrations",
    }
}

#[tokio::test]
async fn a_fresh_database_goes_up_and_down_and_up_again() {
    both_empty(async |test| {
        schema::migrate(&test.db, &test.url).await.unwrap();
        let up = shape(test).await;
        assert!(up.iter().any(|line| line.contains("sync_runs_one_active")));

        schema::migrate_down(&test.url).await.unwrap();
        let down = shape(test).await;
        let table_names = match test.kind {
            Kind::Sqlite => "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name",
            Kind::Postgres => {
                "SELECT table_name::text FROM information_schema.tables
                 WHERE table_schema IN ('dna', 'public') ORDER BY table_name"
            }
        };
        assert_eq!(
            test.column(table_names).await,
            ["migrations", "seaql_migrations"],
            "{down:?}"
        );
        assert_eq!(test.count(migrations_table(test)).await, 0);
        let status = schema::status(&test.db).await.unwrap();
        assert_eq!((status.applied.len(), status.pending.len()), (0, 23));

        schema::migrate(&test.db, &test.url).await.unwrap();
        assert_eq!(shape(test).await, up);
        schema::status(&test.db).await.unwrap().check().unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_platforms_own_database_is_added_to_and_given_back_as_it_was() {
    let test = TestDb::empty(Kind::Postgres).await;
    test.sql(PLATFORM).await;
    let before = shape(&test).await;
    let mut rows = Vec::new();
    for sql in PLATFORM_ROWS {
        rows.push(test.column(sql).await);
    }

    for _ in 0..2 {
        schema::migrate(&test.db, &test.url).await.unwrap();
        let shape_now = shape(&test).await;
        assert_ne!(shape_now, before);
        // The platform's own index does what ours would.
        let of_entity = |line: &&String| line.contains("dna.raw_data USING btree (entity_id)");
        assert_eq!(shape_now.iter().filter(of_entity).count(), 1);
        for (sql, kept) in PLATFORM_ROWS.iter().zip(&rows) {
            assert_eq!(test.column(sql).await, *kept);
        }
        let note = "00000000-0000-4000-8000-000000000002".parse().unwrap();
        let note = raw_data::find(&test.db, Scope::Operator, note, false)
            .await
            .unwrap();
        assert_eq!(note.data_content.as_deref(), Some("older than nucleus"));
        assert_eq!(note.integration_id, None);
        // An erased row has no content, which the column did not allow before.
        test.sql(
            "INSERT INTO dna.raw_data (entity_id, data_type, data_content)
             VALUES ('00000000-0000-4000-8000-000000000001', 'email', NULL)",
        )
        .await;

        schema::migrate_down(&test.url).await.unwrap();
        assert_eq!(shape(&test).await, before);
        for (sql, kept) in PLATFORM_ROWS.iter().zip(&rows) {
            assert_eq!(test.column(sql).await, *kept);
        }
        assert_eq!(test.count("public.migrations").await, 1);
    }
}

#[tokio::test]
async fn every_change_adds_its_row_to_the_platforms_table() {
    both(async |test| {
        let table = migrations_table(test);
        let versions = test
            .column(&format!("SELECT version FROM {table} ORDER BY version"))
            .await;
        assert_eq!(
            versions,
            [
                "001", "002", "003", "004", "005", "006", "007", "008", "009", "010", "011", "012",
                "013", "014", "015", "016", "017", "018", "019", "020", "021", "022", "023"
            ]
        );
        let second = test
            .column(&format!(
                "SELECT description FROM {table} WHERE version = '002' AND executed_at IS NOT NULL"
            ))
            .await;
        assert_eq!(second, ["entity_integrations"]);
    })
    .await;
}

#[tokio::test]
async fn a_database_that_lacks_changes_says_which_and_how_to_mend_it() {
    both_empty(async |test| {
        let status = schema::status(&test.db).await.unwrap();
        assert_eq!(status.pending.len(), 23);
        let Err(DbError::Schema(text)) = status.check() else {
            panic!("an empty database must not pass");
        };
        assert!(text.contains("m001_baseline"), "{text}");
        assert!(text.contains("nucleus migrate"), "{text}");
    })
    .await;
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_with_a_mend() {
    both(async |test| {
        test.sql("INSERT INTO seaql_migrations (version, applied_at) VALUES ('m099_later', 1)")
            .await;
        let status: SchemaStatus = schema::status(&test.db).await.unwrap();
        assert_eq!(status.unknown, ["m099_later"]);
        for refused in [status.check(), schema::migrate(&test.db, &test.url).await] {
            let Err(DbError::Schema(text)) = refused else {
                panic!("a newer database must be refused");
            };
            assert!(text.contains("newer nucleus"), "{text}");
            assert!(text.contains("m099_later"), "{text}");
            assert!(text.contains("use that version"), "{text}");
        }
    })
    .await;
}

async fn connect_and_migrate(url: &str) -> Result<SchemaStatus, DbError> {
    let db = Db::connect(url, Limits::of(2)).await?;
    schema::migrate(&db, url).await?;
    let status = schema::status(&db).await?;
    db.close().await?;
    Ok(status)
}

#[tokio::test]
async fn many_that_connect_and_migrate_at_once_all_succeed() {
    for _ in 0..3 {
        let folder = tempfile::TempDir::new().unwrap();
        let database = PostgresDatabase::create().await;
        for url in [&sqlite_url(&folder), &database.url] {
            for status in join_all((0..8).map(|_| connect_and_migrate(url))).await {
                status.unwrap().check().unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_change_that_fails_leaves_nothing_half_done() {
    both_empty(async |test| {
        // The fourth change makes several tables; this one stands in its way.
        test.sql("CREATE TABLE sync_gaps (id integer)").await;
        schema::migrate(&test.db, &test.url).await.unwrap_err();
        let names = shape(test).await.join("\n");
        assert!(!names.contains("sync_runs"), "{names}");

        test.sql("DROP TABLE sync_gaps").await;
        schema::migrate(&test.db, &test.url).await.unwrap();
        schema::status(&test.db).await.unwrap().check().unwrap();
    })
    .await;
}

/// A role of the test's own, and the address by which it connects.
async fn make_role(test: &TestDb) -> (String, String) {
    let role = format!("nucleus_{}", Uuid::now_v7().simple());
    test.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD 'only-here'"))
        .await;
    let mut url = url::Url::parse(&test.url).unwrap();
    url.set_username(&role).unwrap();
    url.set_password(Some("only-here")).unwrap();
    (role, url.into())
}

async fn drop_role(test: &TestDb, role: &str) {
    test.sql(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))
        .await;
}

#[tokio::test]
async fn a_role_that_may_not_make_schemas_connects_where_dna_exists() {
    let test = TestDb::postgres().await;
    let (role, url) = make_role(&test).await;
    test.sql(&format!(
        "GRANT USAGE ON SCHEMA dna TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA dna TO {role}"
    ))
    .await;
    let status = async {
        let db = Db::connect(&url, Limits::of(1)).await?;
        schema::status(&db).await
    };
    let status = status.await;
    drop_role(&test, &role).await;
    status.unwrap().check().unwrap();
}

#[tokio::test]
async fn a_role_that_owns_dna_and_nothing_else_migrates_the_platforms_database() {
    let test = TestDb::empty(Kind::Postgres).await;
    test.sql(PLATFORM).await;
    let (role, url) = make_role(&test).await;
    test.sql(&format!(
        "ALTER SCHEMA dna OWNER TO {role}; ALTER TABLE dna.entity OWNER TO {role};
         ALTER TABLE dna.raw_data OWNER TO {role};
         GRANT SELECT, INSERT, DELETE ON public.migrations TO {role}"
    ))
    .await;
    let status = connect_and_migrate(&url).await;
    drop_role(&test, &role).await;
    status.unwrap().check().unwrap();
}

/// Every column there is: whose, its type, and whether a row needs it.
async fn columns(test: &TestDb) -> BTreeMap<String, (String, bool)> {
    let lines = test
        .column(
            "SELECT concat_ws('|', table_schema || '.' || table_name || '.' || column_name,
                data_type || coalesce(character_maximum_length::text, ''),
                is_nullable = 'NO' AND column_default IS NULL)
             FROM information_schema.columns
             WHERE table_schema IN ('dna', 'public') AND table_name <> 'seaql_migrations'",
        )
        .await;
    let parts = lines.iter().map(|line| line.split('|').collect::<Vec<_>>());
    parts
        .map(|parts| (parts[0].to_owned(), (parts[1].to_owned(), parts[2] == "t")))
        .collect()
}

/// While a new version is rolled out, the one before works on the changed database: what it reads is
/// there, and what it writes is enough.
#[tokio::test]
async fn every_change_leaves_the_version_before_at_work() {
    let test = TestDb::empty(Kind::Postgres).await;
    let mut options = ConnectOptions::new(&test.url);
    options.set_schema_search_path("dna").sqlx_logging(false);
    let conn = Database::connect(options).await.unwrap();
    let mut before = BTreeMap::new();
    for change in Migrator::migrations() {
        Migrator::up(&conn, Some(1)).await.unwrap();
        let after = columns(&test).await;
        let tables: BTreeSet<&str> = before.keys().map(|name: &String| table(name)).collect();
        for (name, (kind, is_needed)) in &before {
            let Some((kind_now, is_needed_now)) = after.get(name) else {
                panic!("{} takes {name} away", change.name());
            };
            assert_eq!(kind, kind_now, "{} changes {name}", change.name());
            assert!(
                *is_needed || !is_needed_now,
                "{} wants {name}",
                change.name()
            );
        }
        for (name, (_, is_needed)) in &after {
            let is_new = !before.contains_key(name) && tables.contains(table(name));
            assert!(!(is_new && *is_needed), "{} wants {name}", change.name());
        }
        before = after;
    }
    assert!(before.len() > 100, "{}", before.len());
    schema::status(&test.db).await.unwrap().check().unwrap();
}

fn table(column: &str) -> &str {
    column.rsplit_once('.').unwrap().0
}

#[tokio::test]
async fn mail_is_packed_with_lz4_where_the_server_has_it() {
    let test = TestDb::postgres().await;
    let has_lz4 = "SELECT ('lz4' = ANY (enumvals))::text FROM pg_settings
                   WHERE name = 'default_toast_compression'";
    let packed = "SELECT DISTINCT attcompression::text FROM pg_attribute
                  WHERE attrelid = 'dna.raw_data'::regclass
                      AND attname IN ('data_content', 'meta_data')";
    let expected = match test.column(has_lz4).await[0].as_str() {
        "true" => "l",
        _ => "",
    };
    assert_eq!(test.column(packed).await, [expected]);
    schema::migrate_down(&test.url).await.unwrap();
}
