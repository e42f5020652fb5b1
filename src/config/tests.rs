//! What is read from where, and how every mistake is named. No test touches the real environment.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, Permissions},
    os::unix::{ffi::OsStringExt, fs::PermissionsExt},
    path::PathBuf,
};

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::{keys::all_names, *};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn env(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    let pairs = variables.iter();
    pairs
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

fn load(variables: &[(&str, &str)]) -> (Config, Vec<String>) {
    Config::load(None, env(variables), None).unwrap()
}

/// The problems as `NAME problem`.
fn problems(file: Option<&str>, variables: &[(&str, &str)]) -> Vec<String> {
    let folder = TempDir::new().unwrap();
    let path = file.map(|text| write(&folder, DEFAULT_FILE, text));
    let errors = Config::load(path.as_deref(), env(variables), None).unwrap_err();
    let lines = errors.0.iter();
    lines.map(|p| format!("{} {}", p.name, p.problem)).collect()
}

fn write(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn nothing_given_is_the_embedded_program_on_loopback() {
    let (config, warnings) = load(&[("HOME", "/home/ada"), ("PATH", "/bin")]);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(
        config.data_dir,
        PathBuf::from("/home/ada/.local/share/nucleus")
    );
    assert_eq!(
        config.database.url.expose_secret(),
        "sqlite:/home/ada/.local/share/nucleus/nucleus.db"
    );
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.http.body_limit_bytes, 1024 * 1024);
    assert!(config.http.operator_key.is_none() && config.secrets.vault_key.is_none());
    assert_eq!(config.sync.max_concurrent_runs, 4);
    assert_eq!(config.sync.fetch_concurrency, 8);
    assert_eq!(config.sync.max_attempts, 10);
    assert_eq!(config.events.retention_days, 30);
    assert_eq!(config.telemetry.filter, "info");
    assert_eq!(config.services.len(), ServiceName::ALL.len());
    let gmail = &config.services[&ServiceName::Gmail];
    assert_eq!(gmail.api_url.as_str(), "https://gmail.googleapis.com/");
    assert_eq!(gmail.quota, QuotaTable::Y2026);
}

#[test]
fn every_listed_setting_is_read_and_every_setting_read_is_listed() {
    for variables in [env(&[]), env(&[("PORT", "80")])] {
        let mut reader = Reader::new(None, variables);
        sections::config(&mut reader, None).unwrap();
        let listed: BTreeSet<String> = all_names().into_iter().map(|(name, _)| name).collect();
        assert_eq!(&listed, reader.asked());
    }
}

#[test]
fn variables_win_over_the_file_and_the_file_over_defaults() {
    let folder = TempDir::new().unwrap();
    let text = "data_dir = '/from/file'\n[http]\nlisten = '127.0.0.1:1'\nbody_limit_bytes = 2048\n\
                return_to = ['https://a.example', 'http://localhost:3000/']\n\
                [services.gmail]\nquota = 2026\nclient_id = 12345\n";
    let file = write(&folder, "own.toml", text);
    let variables = env(&[("NUCLEUS_HTTP__LISTEN", "127.0.0.1:2")]);
    let (config, _) = Config::load(Some(&file), variables, None).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("/from/file"));
    assert_eq!(config.http.listen.port(), 2);
    assert_eq!(config.http.body_limit_bytes, 2048);
    assert_eq!(
        config.http.return_to,
        ["https://a.example", "http://localhost:3000"]
    );
    let gmail = &config.services[&ServiceName::Gmail];
    assert_eq!(gmail.client_id.as_deref(), Some("12345"));
    let over = Config::load(Some(&file), env(&[]), Some("/from/flag".into()))
        .unwrap()
        .0;
    assert_eq!(over.data_dir, PathBuf::from("/from/flag"));
}

#[test]
fn all_mistakes_are_told_at_once_by_the_name_that_was_used() {
    let file = "colour = 1\n[http]\nlisten = 8080\nlissten = 'x'\n[sync]\nmax_attempts = [1]\n\
                fetch_concurrency = 11\n[queue]\nkind = 1979-05-27\n[telemetry.format]\nx = 1\n";
    let found = problems(
        Some(file),
        &[
            ("NUCLEUS_HTTP__OPERATOR_KEY", "too-short"),
            ("NUCLEUS_HTPP__LISTEN", "127.0.0.1:1"),
            ("NUCLEUS_SERVICES__GMIAL__CLIENT_ID", "x"),
            ("NUCLEUS_SERVICES__SLACK__QUOTA", "off"),
            ("NUCLEUS_EVENTS__RETENTION_DAYS", "0"),
            ("NUCLEUS_SECRETS__KIND", "aws"),
            ("NUCLEUS_DATABASE__URL", "mysql://root:hunter2@db/x"),
            ("NUCLEUS_HTTP__RETURN_TO", "https://a.example/path,ftp://b"),
        ],
    );
    let expected = [
        "colour in nucleus.toml is no setting",
        "http.lissten in nucleus.toml is no setting, did you mean http.listen?",
        "queue.kind in nucleus.toml must be a text, a number or a list of texts",
        "telemetry.format in nucleus.toml must be a text, a number or a list of texts",
        "NUCLEUS_HTPP__LISTEN is no setting, did you mean NUCLEUS_HTTP__LISTEN?",
        "NUCLEUS_SERVICES__GMIAL__CLIENT_ID is no setting, did you mean NUCLEUS_SERVICES__GMAIL__CLIENT_ID?",
        "NUCLEUS_SERVICES__SLACK__QUOTA is no setting, did you mean NUCLEUS_SERVICES__GMAIL__QUOTA?",
        "http.listen in nucleus.toml is \"8080\", not an IP address with a port such as 127.0.0.1:8080",
        "NUCLEUS_HTTP__OPERATOR_KEY is shorter than 32 characters: `openssl rand -hex 24` makes one",
        "NUCLEUS_HTTP__RETURN_TO holds \"https://a.example/path\", which has a path: give the origin alone, \"https://a.example\"",
        "NUCLEUS_HTTP__RETURN_TO begins with ftp:, not http: or https:",
        "NUCLEUS_DATABASE__URL is neither sqlite:PATH nor postgres://USER:PASSWORD@HOST/NAME",
        "NUCLEUS_SECRETS__KIND is \"aws\"; this build knows vault, gcp",
        "sync.fetch_concurrency in nucleus.toml is \"11\", not a whole number from 1 to 10",
        "sync.max_attempts in nucleus.toml takes one value, not a list",
        "NUCLEUS_EVENTS__RETENTION_DAYS is \"0\", not a whole number from 1 to 3650",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_section_written_as_a_value_is_told_apart_from_an_unknown_key() {
    let found = problems(Some("http = 1\n"), &[]);
    assert_eq!(found, ["http in nucleus.toml is a section: write [http]"]);
}

#[test]
fn an_unknown_variable_without_levels_is_only_a_warning() {
    let (_, warnings) = load(&[
        ("NUCLEUS_SERVICE_HOST", "10.0.0.1"),
        ("NUCLEUS_DATADIR", "/x"),
    ]);
    assert_eq!(
        warnings,
        [
            "NUCLEUS_SERVICE_HOST is no setting of nucleus and is ignored",
            "NUCLEUS_DATADIR is no setting of nucleus and is ignored, did you mean NUCLEUS_DATA_DIR?",
        ]
    );
}

#[test]
fn a_secret_may_stand_in_a_file_of_its_own() {
    let folder = TempDir::new().unwrap();
    let operator_key = "k".repeat(OPERATOR_KEY_MIN_CHARS);
    let path = write(&folder, "key", &format!("{operator_key}\r\n"));
    let path = path.to_str().unwrap();
    let (config, _) = load(&[("NUCLEUS_HTTP__OPERATOR_KEY_FILE", path)]);
    assert_eq!(
        config.http.operator_key.unwrap().expose_secret(),
        operator_key
    );

    // A variable wins over the file in either form.
    let toml = format!("[http]\noperator_key_file = {path:?}\n");
    let toml = write(&folder, "own.toml", &toml);
    let other = "o".repeat(OPERATOR_KEY_MIN_CHARS);
    let variables = env(&[("NUCLEUS_HTTP__OPERATOR_KEY", &other)]);
    let (config, _) = Config::load(Some(&toml), variables, None).unwrap();
    assert_eq!(config.http.operator_key.unwrap().expose_secret(), other);
}

#[test]
fn a_secret_in_a_file_that_everybody_reads_is_warned_of() {
    let folder = TempDir::new().unwrap();
    let operator_key = "k".repeat(OPERATOR_KEY_MIN_CHARS);
    let own = write(&folder, "key", &operator_key);
    let with_secret = format!("[http]\noperator_key = {operator_key:?}\n");
    let with_secret = write(&folder, "with-secret.toml", &with_secret);
    let without = write(
        &folder,
        "without.toml",
        "[http]\nlisten = \"127.0.0.1:1\"\n",
    );
    let all = [&own, &with_secret, &without];
    for (mode, is_told) in [(0o644, true), (0o640, false), (0o600, false)] {
        for path in all {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        let variables = [("NUCLEUS_HTTP__OPERATOR_KEY_FILE", own.to_str().unwrap())];
        let named = Config::load(Some(&without), env(&variables), None).unwrap();
        let written = Config::load(Some(&with_secret), env(&[]), None).unwrap();
        for (path, (_, warnings)) in [(&own, named), (&with_secret, written)] {
            assert_eq!(
                warnings.len(),
                usize::from(is_told),
                "{mode:o}: {warnings:?}"
            );
            let mend = format!("chmod 600 {}", path.display());
            assert!(warnings.iter().all(|warning| warning.contains(&mend)));
            assert!(warnings.iter().all(|warning| !warning.contains("kkk")));
        }
    }
}

#[test]
fn a_secret_given_twice_or_unreadable_or_empty_is_a_mistake() {
    let found = problems(
        None,
        &[
            (
                "NUCLEUS_HTTP__OPERATOR_KEY",
                "0123456789abcdef0123456789abcdef",
            ),
            ("NUCLEUS_HTTP__OPERATOR_KEY_FILE", "/nowhere/key"),
            ("NUCLEUS_SECRETS__VAULT_KEY_FILE", "/nowhere/vault"),
            ("NUCLEUS_DATABASE__URL_FILE", "/dev/null"),
            ("NUCLEUS_HTTP__LISTEN_FILE", "/nowhere"),
        ],
    );
    assert_eq!(found.len(), 4, "{found:#?}");
    assert_eq!(found[0], "NUCLEUS_HTTP__LISTEN_FILE is no setting");
    let problem = "is given beside NUCLEUS_HTTP__OPERATOR_KEY: keep one of the two";
    assert_eq!(
        found[1],
        format!("NUCLEUS_HTTP__OPERATOR_KEY_FILE {problem}")
    );
    let name = "NUCLEUS_SECRETS__VAULT_KEY_FILE";
    assert!(found[2].starts_with(&format!(
        "{name} names \"/nowhere/vault\", which cannot be read: "
    )));
    let problem = "is empty: give a value or leave it out";
    assert_eq!(found[3], format!("NUCLEUS_DATABASE__URL_FILE {problem}"));
}

#[test]
fn the_vault_key_is_base64_of_exactly_32_bytes() {
    let expected: Vec<u8> = (0..32).collect();
    for text in [KEY, KEY.trim_end_matches('=')] {
        let (config, _) = load(&[("NUCLEUS_SECRETS__VAULT_KEY", text)]);
        let key = config.secrets.vault_key.unwrap();
        assert_eq!(key.expose_secret().as_slice(), expected);
    }
    for text in ["AAAA", "not base64!", &KEY.repeat(2)] {
        let found = problems(None, &[("NUCLEUS_SECRETS__VAULT_KEY", text)]);
        let problem = "is not base64 of 32 bytes: `openssl rand -base64 32` makes one";
        assert_eq!(found, [format!("NUCLEUS_SECRETS__VAULT_KEY {problem}")]);
    }
}

#[test]
fn secret_manager_has_a_project_an_endpoint_and_places() {
    let kind = ("NUCLEUS_SECRETS__KIND", "gcp");
    let project = ("NUCLEUS_SECRETS__PROJECT_ID", "a-project-7");
    let (config, warnings) = load(&[kind, project]);
    let plain = SecretsKind::Gcp {
        project_id: "a-project-7".to_owned(),
        endpoint: None,
        locations: Vec::new(),
    };
    assert_eq!((config.secrets.kind, warnings), (plain, Vec::new()));

    let endpoint = ("NUCLEUS_SECRETS__ENDPOINT", "http://127.0.0.1:9");
    let places = ("NUCLEUS_SECRETS__REPLICATION", "europe-west4, europe-west1");
    let (config, warnings) = load(&[
        kind,
        project,
        endpoint,
        places,
        ("NUCLEUS_SECRETS__VAULT_KEY", KEY),
    ]);
    let placed = SecretsKind::Gcp {
        project_id: "a-project-7".to_owned(),
        endpoint: Some(Url::parse("http://127.0.0.1:9").unwrap()),
        locations: vec!["europe-west1".to_owned(), "europe-west4".to_owned()],
    };
    assert_eq!(config.secrets.kind, placed);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("VAULT_KEY is not used"));
    let automatic = ("NUCLEUS_SECRETS__REPLICATION", "automatic");
    load(&[kind, project, automatic]);
}

#[test]
fn every_mistake_about_secret_manager_is_named() {
    let kind = ("NUCLEUS_SECRETS__KIND", "gcp");
    let project = ("NUCLEUS_SECRETS__PROJECT_ID", "a-project-7");
    for (variables, expected) in [
        (vec![kind], "PROJECT_ID is not set: `gcp` needs"),
        (
            vec![kind, ("NUCLEUS_SECRETS__PROJECT_ID", "A Project")],
            "PROJECT_ID is \"A Project\", not the id of a project",
        ),
        (
            vec![
                kind,
                project,
                ("NUCLEUS_SECRETS__ENDPOINT", "http://secrets.example"),
            ],
            "ENDPOINT is plain http to another machine: use https",
        ),
        (
            vec![
                kind,
                project,
                ("NUCLEUS_SECRETS__REPLICATION", "automatic,us-east1"),
            ],
            "REPLICATION names regions beside `automatic`",
        ),
        (
            vec![
                kind,
                project,
                ("NUCLEUS_SECRETS__REPLICATION", "us-east1,us-east1"),
            ],
            "REPLICATION names a region twice",
        ),
        (
            vec![kind, project, ("NUCLEUS_SECRETS__REPLICATION", "Frankfurt")],
            "REPLICATION names \"Frankfurt\", which is neither",
        ),
        (
            vec![project],
            "PROJECT_ID is for `gcp` alone: set NUCLEUS_SECRETS__KIND to gcp",
        ),
    ] {
        let found = problems(None, &variables);
        assert_eq!(found.len(), 1, "{found:?}");
        let expected = format!("NUCLEUS_SECRETS__{expected}");
        assert!(found[0].starts_with(&expected), "{found:?}");
    }
    let file = "[secrets]\nkind = 'gcp'\nproject_id = 'x'\nreplication = ['moon', 'us-east1']\n";
    let found = problems(Some(file), &[]);
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn plain_http_to_a_service_is_for_loopback_hosts_only() {
    for url in [
        "http://127.0.0.1:9",
        "http://[::1]:9",
        "http://localhost:9",
        "https://x.example",
    ] {
        load(&[("NUCLEUS_SERVICES__GMAIL__API_URL", url)]);
    }
    for url in [
        "http://x.example",
        "http://127.0.0.1.x.example",
        "ftp://x.example",
        "gmail.googleapis.com",
        "https://u:p@x.example",
        "https://x.example?a=b",
    ] {
        let found = problems(None, &[("NUCLEUS_SERVICES__GMAIL__TOKEN_URL", url)]);
        assert_eq!(found.len(), 1, "{url}");
    }
}

#[test]
fn a_client_secret_needs_its_client() {
    let found = problems(None, &[("NUCLEUS_SERVICES__GITHUB__CLIENT_SECRET", "s")]);
    let name = "NUCLEUS_SERVICES__GITHUB__CLIENT_SECRET";
    let problem = "is given without its client: set NUCLEUS_SERVICES__GITHUB__CLIENT_ID too";
    assert_eq!(found, [format!("{name} {problem}")]);
}

#[test]
fn the_platforms_port_counts_only_where_no_address_was_given() {
    let (config, warnings) = load(&[("PORT", "9000")]);
    assert_eq!(config.http.listen.to_string(), "0.0.0.0:9000");
    assert_eq!(
        warnings.len(),
        1,
        "no browser can be sent to 0.0.0.0: {warnings:?}"
    );
    let listen = ("NUCLEUS_HTTP__LISTEN", "127.0.0.1:1");
    let (config, _) = load(&[("PORT", "no port"), listen]);
    assert_eq!(config.http.listen.port(), 1);
    let found = problems(None, &[("PORT", "http")]);
    assert_eq!(found, ["PORT is \"http\", not a port number"]);
}

#[test]
fn the_public_url_follows_the_bound_address_unless_it_was_given() {
    let bound = "127.0.0.1:4711".parse().unwrap();
    let (config, _) = load(&[("NUCLEUS_HTTP__LISTEN", "127.0.0.1:0")]);
    assert_eq!(config.http.public_url_at(bound), "http://127.0.0.1:4711");
    let (config, _) = load(&[("NUCLEUS_HTTP__PUBLIC_URL", "https://n.example/base/")]);
    assert_eq!(config.http.public_url_at(bound), "https://n.example/base");
}

#[test]
fn the_data_folder_has_a_default_on_every_machine() {
    let xdg = ("XDG_DATA_HOME", "/xdg");
    let home = ("HOME", "/home/ada");
    assert_eq!(load(&[xdg, home]).0.data_dir, PathBuf::from("/xdg/nucleus"));
    let relative = ("XDG_DATA_HOME", "relative");
    let data_dir = load(&[relative, home]).0.data_dir;
    assert_eq!(data_dir, PathBuf::from("/home/ada/.local/share/nucleus"));
    assert_eq!(load(&[]).0.data_dir, PathBuf::from("nucleus-data"));
    assert_eq!(problems(None, &[("NUCLEUS_DATA_DIR", "~/n")]).len(), 1);
    let (config, _) = load(&[("NUCLEUS_DATA_DIR", "/a b/50%?")]);
    assert_eq!(
        config.database.url.expose_secret(),
        "sqlite:/a b/50%25%3F/nucleus.db"
    );
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_named_without_quoting_it() {
    let missing = Config::load(Some(Path::new("/nowhere/n.toml")), env(&[]), None).unwrap_err();
    assert!(
        missing
            .to_string()
            .contains("/nowhere/n.toml cannot be read")
    );
    let found = problems(Some("[http]\noperator_key = \"hunter2\n"), &[]);
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("line 2 is not TOML"), "{found:?}");
    assert!(!found[0].contains("hunter2"), "{found:?}");
}

#[test]
fn a_variable_that_is_not_utf8_is_named() {
    let value = OsString::from_vec(vec![0xff]);
    let variables = [(OsString::from("NUCLEUS_DATA_DIR"), value.clone())];
    let errors = Config::load(None, variables, None).unwrap_err();
    assert_eq!(errors.0[0].name, "NUCLEUS_DATA_DIR");
    let others = [(OsString::from("LS_COLORS"), value)];
    assert!(Config::load(None, others, None).is_ok());
}

#[test]
fn no_secret_is_printed() {
    let secrets = [
        (
            "NUCLEUS_HTTP__OPERATOR_KEY",
            "operator-hunter2-0123456789abcdef-x",
        ),
        ("NUCLEUS_DATABASE__URL", "postgres://u:db-hunter2@h/n"),
        ("NUCLEUS_SECRETS__VAULT_KEY", KEY),
        ("NUCLEUS_SERVICES__GMAIL__CLIENT_ID", "client"),
        ("NUCLEUS_SERVICES__GMAIL__CLIENT_SECRET", "secret-hunter2"),
    ];
    let printed = format!("{:?}", load(&secrets).0);
    assert!(printed.contains("client"));
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(!printed.contains("0, 1, 2, 3"), "{printed}");
    let mistakes = [
        ("NUCLEUS_HTTP__OPERATOR_KEY", "hunter2"),
        ("NUCLEUS_DATABASE__URL", "postgres://u:hunter2@["),
        ("NUCLEUS_SECRETS__VAULT_KEY", "hunter2"),
        ("NUCLEUS_SERVICES__GMAIL__API_URL", "https://u:hunter2@h"),
    ];
    let found = problems(None, &mistakes);
    assert_eq!(found.len(), mistakes.len());
    assert!(!found.join("\n").contains("hunter2"), "{found:?}");
}

#[test]
fn the_table_of_settings_has_a_row_for_each() {
    let rows: Vec<String> = KEYS.iter().map(Key::readme_row).collect();
    assert!(rows.contains(
        &"| `NUCLEUS_SERVICES__<NAME>__TOKEN_URL` |  | The service's token endpoint |".to_owned()
    ));
    assert!(
        rows.iter()
            .all(|row| !row.contains('\n') && row.matches(" | ").count() == 2)
    );
}

#[test]
fn a_database_is_named_as_postgresql_s_own_tools_name_it() {
    let url = |text: &str| {
        let (config, warnings) = load(&[("NUCLEUS_DATABASE__URL", text)]);
        (
            config.database.url.expose_secret().to_owned(),
            warnings.len(),
        )
    };
    let socket = "host=/cloudsql/project:region:instance";
    for (given, read) in [
        ("postgres://u:p@db.internal/n?sslmode=verify-full", None),
        ("postgres://u:p@127.0.0.1:5433/n", None),
        ("postgres://u:p@localhost/n", None),
        ("postgresql:///n", Some("postgres://localhost/n".to_owned())),
        (
            &format!("postgres://u:p@/n?{socket}"),
            Some(format!("postgres://u:p@localhost/n?{socket}")),
        ),
        (
            &format!("postgresql://u:p@localhost/n?{socket}"),
            Some(format!("postgres://u:p@localhost/n?{socket}")),
        ),
    ] {
        assert_eq!(url(given), (read.unwrap_or(given.to_owned()), 0), "{given}");
    }
    for readable in [
        "postgres://u:p@10.1.2.3/n",
        "postgres://u:p@localhost/n?host=db.internal",
    ] {
        assert_eq!(url(readable).1, 1, "{readable}");
    }
    for wrong in [
        "sqlite:",
        "postgres:/u:hunter2@h/n",
        "mysql://u:hunter2@h/n",
    ] {
        let problems = problems(None, &[("NUCLEUS_DATABASE__URL", wrong)]);
        assert_eq!(problems.len(), 1, "{wrong}");
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
    }
}

#[test]
fn what_the_database_is_waited_for_has_bounds() {
    let (config, _) = load(&[("NUCLEUS_DATABASE__LOCK_SECONDS", "3")]);
    let seconds = std::time::Duration::from_secs;
    assert_eq!(config.database.lock_timeout, seconds(3));
    assert_eq!(config.database.acquire_timeout, seconds(10));
    assert_eq!(config.database.statement_timeout, seconds(30));
    assert_eq!(config.database.idle_in_transaction_timeout, seconds(10));
    // None at all is no choice: a process that was stopped would hold its locks for ever.
    for name in ["ACQUIRE", "STATEMENT", "LOCK", "IDLE_IN_TRANSACTION"] {
        let variable = format!("NUCLEUS_DATABASE__{name}_SECONDS");
        assert_eq!(problems(None, &[(&variable, "0")]).len(), 1, "{name}");
    }
}

#[test]
fn pubsub_needs_a_project_and_takes_an_emulator() {
    let kind = |variables: &[(&str, &str)]| load(variables).0.queue.kind;
    assert_eq!(kind(&[]), QueueKind::Embedded);
    // Set for other programs on the same machine, it means nothing here.
    let elsewhere = ("PUBSUB_EMULATOR_HOST", "localhost:8085");
    assert_eq!(kind(&[elsewhere]), QueueKind::Embedded);
    let pubsub = ("NUCLEUS_QUEUE__KIND", "pubsub");
    let project = ("NUCLEUS_QUEUE__PROJECT_ID", "a-project");
    let made = |emulator: Option<&str>| QueueKind::PubSub {
        project_id: "a-project".to_owned(),
        emulator: emulator.map(str::to_owned),
    };
    assert_eq!(kind(&[pubsub, project]), made(None));
    let emulator = made(Some("http://localhost:8085"));
    assert_eq!(kind(&[pubsub, project, elsewhere]), emulator);
    let found = problems(None, &[pubsub]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("QUEUE__PROJECT_ID"), "{found:?}");
    for wrong in ["A-Project", "short", "projects/a-project"] {
        let found = problems(None, &[pubsub, ("NUCLEUS_QUEUE__PROJECT_ID", wrong)]);
        assert!(found[0].contains("not the id of a project"), "{found:?}");
    }
    for wrong in ["localhost", "http://localhost:8085", "h:1/path"] {
        let found = problems(None, &[pubsub, project, ("PUBSUB_EMULATOR_HOST", wrong)]);
        assert!(found[0].contains("not host:port"), "{wrong}: {found:?}");
    }
    let found = problems(None, &[("NUCLEUS_QUEUE__KIND", "kafka")]);
    assert!(found[0].contains("embedded, pubsub"), "{found:?}");
}

#[test]
fn a_collector_is_named_by_the_program_s_own_setting_or_the_usual_variable() {
    let endpoint = |variables: &[(&str, &str)]| {
        let url = load(variables).0.telemetry.otlp_endpoint;
        url.map(|url| url.to_string())
    };
    let own = ("NUCLEUS_TELEMETRY__OTLP_ENDPOINT", "http://127.0.0.1:4318");
    let usual = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318/base");
    assert_eq!(endpoint(&[]), None);
    assert_eq!(endpoint(&[usual]).unwrap(), "https://collector:4318/base");
    assert_eq!(endpoint(&[usual, own]).unwrap(), "http://127.0.0.1:4318/");
    let wrong = problems(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")]);
    assert!(
        wrong[0].starts_with("OTEL_EXPORTER_OTLP_ENDPOINT "),
        "{wrong:?}"
    );
}
