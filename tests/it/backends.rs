//! Which parts the program runs on in the tests: the embedded ones, or, where `NUCLEUS_TEST_BACKENDS` is
//! `google`, those of Google Cloud, played by the programs that `scripts/test` starts.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use nucleus::domain::ServiceName;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

const KIND: &str = "NUCLEUS_SECRETS__KIND";
const PROJECT_ID: &str = "NUCLEUS_SECRETS__PROJECT_ID";
const ENDPOINT: &str = "NUCLEUS_SECRETS__ENDPOINT";
/// What leads the program to a Secret Manager; without them credentials are kept in the vault.
pub const SECRETS: [&str; 3] = [KIND, PROJECT_ID, ENDPOINT];
/// Where the Secret Manager of the tests is.
const SECRET_MANAGER_URL: &str = "NUCLEUS_TEST_SECRET_MANAGER_URL";

/// Whether every test is to run on the parts of Google Cloud.
#[expect(
    clippy::disallowed_methods,
    reason = "the tester's own variable, not the program's"
)]
pub fn are_google() -> bool {
    match std::env::var("NUCLEUS_TEST_BACKENDS").as_deref() {
        Err(_) | Ok("" | "embedded") => false,
        Ok("google") => true,
        Ok(other) => panic!("NUCLEUS_TEST_BACKENDS is {other:?}, neither embedded nor google"),
    }
}

/// What leads the program to its secret store, as the tester has chosen it.
pub fn secrets() -> HashMap<&'static str, String> {
    match are_google() {
        true => secret_manager(&secret_manager_url()),
        false => HashMap::new(),
    }
}

/// Without rate limits: tests are in a hurry, and all of them come from one address.
pub fn no_rate_limits() -> [(&'static str, String); 3] {
    [
        "NUCLEUS_HTTP__REQUESTS_PER_KEY",
        "NUCLEUS_HTTP__REQUESTS_PER_ADDRESS",
        "NUCLEUS_HTTP__FAILURES_PER_ADDRESS",
    ]
    .map(|name| (name, "0".to_owned()))
}

/// The Secret Manager of a third party.
#[expect(
    clippy::disallowed_methods,
    reason = "the server is named by who runs the tests"
)]
pub fn secret_manager_url() -> String {
    std::env::var(SECRET_MANAGER_URL).unwrap_or_else(|_| {
        panic!("{SECRET_MANAGER_URL} is not set: run scripts/test, which starts a server")
    })
}

/// What leads the program to a Secret Manager, into a project of its own.
pub fn secret_manager(url: &str) -> HashMap<&'static str, String> {
    HashMap::from([
        (KIND, "gcp".to_owned()),
        (PROJECT_ID, new_project()),
        (ENDPOINT, url.to_owned()),
    ])
}

/// The id of a project that nobody has.
pub fn new_project() -> String {
    let id = Uuid::now_v7().simple().to_string();
    // The end is the random part, and an id has 30 characters at most.
    format!("test-{}", &id[12..])
}

/// The live versions of secrets, as rows name them, of a program that was started with these variables
/// on this data folder.
pub async fn live_versions(
    variables: &HashMap<String, String>,
    data_dir: &Path,
) -> BTreeSet<String> {
    if variables.get(KIND).map(String::as_str) != Some("gcp") {
        return sealed_files(&data_dir.join("vault"));
    }
    let url = variables[ENDPOINT].trim_end_matches('/');
    let project = &variables[PROJECT_ID];
    let get = async |path: &str| -> Value {
        let answer = reqwest::get(format!("{url}/v1/{path}")).await.unwrap();
        let text = answer.error_for_status().unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let mut found = BTreeSet::new();
    let listed = get(&format!("projects/{project}/secrets")).await;
    for secret in listed["secrets"].as_array().unwrap() {
        let name = secret["name"].as_str().unwrap();
        let listed = get(&format!("{name}/versions")).await;
        for version in listed["versions"].as_array().unwrap() {
            if version["state"] != "DESTROYED" {
                found.insert(version["name"].as_str().unwrap().to_owned());
            }
        }
    }
    found
}

/// Everything that the database of a program holds which was started with these variables on this data
/// folder: the bytes of its files, or each row of each table as text.
pub async fn database_bytes(variables: &HashMap<String, String>, data_dir: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Some(url) = variables.get("NUCLEUS_DATABASE__URL") else {
        for entry in std::fs::read_dir(data_dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                bytes.extend(std::fs::read(&path).unwrap());
            }
        }
        return bytes;
    };
    let mut conn = PgConnection::connect(url).await.unwrap();
    let tables = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
        WHERE schemaname IN ('dna', 'public')";
    let tables: Vec<String> = sqlx::query_scalar(tables)
        .fetch_all(&mut conn)
        .await
        .unwrap();
    assert!(tables.len() > 10, "{tables:?}");
    for table in tables {
        let rows = format!("SELECT row::text FROM {table} AS row");
        let rows = sqlx::query_scalar(AssertSqlSafe(rows)).fetch_all(&mut conn);
        let rows: Vec<String> = rows.await.unwrap();
        for row in rows {
            bytes.extend(row.as_bytes());
            bytes.push(b'\n');
        }
    }
    bytes
}

/// The versions in a vault: files that are called by a number.
fn sealed_files(vault: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in std::fs::read_dir(vault).unwrap() {
        let folder = folder.unwrap();
        if !folder.path().is_dir() {
            continue;
        }
        let name = folder.file_name().into_string().unwrap();
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let number = file.unwrap().file_name().into_string().unwrap();
            if number.parse::<u64>().is_ok() {
                found.insert(format!("{name}/versions/{number}"));
            }
        }
    }
    found
}

/// Points what is not configured yet to where nobody listens: no test asks a vendor.
pub fn point_at_nobody(variables: &mut HashMap<String, String>) {
    for service in ServiceName::ALL {
        let name = service.as_str().to_uppercase();
        for endpoint in ["API_URL", "TOKEN_URL"] {
            variables
                .entry(format!("NUCLEUS_SERVICES__{name}__{endpoint}"))
                .or_insert_with(|| "http://127.0.0.1:9".to_owned());
        }
    }
}
