//! The compose file: read by the Compose specification, and held against the program.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{assert_is_command, assert_settings, tool, words};

/// What a person puts into `.env`.
const GIVEN: [(&str, &str); 3] = [
    ("POSTGRES_PASSWORD", "0123456789abcdef"),
    (
        "NUCLEUS_HTTP__OPERATOR_KEY",
        "0123456789abcdef0123456789abcdef",
    ),
    (
        "NUCLEUS_SECRETS__VAULT_KEY",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    ),
];

fn services() -> BTreeMap<String, Value> {
    let read = tool("python", &["tests/it/delivery/compose.py", "compose.yaml"]);
    let mut document: Value = serde_json::from_str(&read).unwrap();
    serde_json::from_value(document["services"].take()).unwrap()
}

/// The value that a container is given, with `${NAME:?…}` put in; none where the shell has none.
fn given(value: &Value) -> Option<String> {
    let mut text = value.as_str()?.to_owned();
    for (name, value) in GIVEN {
        let place = format!("${{{name}:?see the top of compose.yaml}}");
        text = text.replace(&place, value);
    }
    assert!(!text.contains("${"), "{text}");
    Some(text)
}

#[test]
fn each_process_of_the_compose_file_is_one_of_the_program() {
    let services = services();
    let ours = services
        .iter()
        .filter(|(_, service)| service["image"] == "nucleus:local");
    let mut roles = BTreeMap::new();
    for (name, service) in ours {
        let environment = service["environment"].as_object().unwrap();
        let settings = environment
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), given(value)?)));
        assert_settings(settings.collect());
        let command = words(&service["command"]);
        if !command.is_empty() {
            assert_is_command(&command);
        }
        // Only one who answers can be asked whether it is well.
        let is_checked = service["healthcheck"]["disable"] != true;
        assert_eq!(is_checked, command == ["serve"], "{name}");
        roles.insert(name.as_str(), command.join(" "));
    }
    let expected = [
        ("api", "serve"),
        ("migrate", "migrate"),
        ("ticks", ""),
        ("topics", "doctor --create"),
        ("worker", "work"),
    ];
    assert_eq!(
        roles,
        expected.map(|(name, role)| (name, role.to_owned())).into()
    );
    assert_eq!(services["worker"]["deploy"]["replicas"], 2);
    assert_is_command(&["tick".to_owned()]);
    let loop_of_ticks = services["ticks"]["entrypoint"].to_string();
    assert!(loop_of_ticks.contains("nucleus tick"), "{loop_of_ticks}");
}

#[test]
fn nothing_of_the_compose_file_starts_before_what_it_needs() {
    let services = services();
    let after = |name: &str| -> BTreeMap<String, String> {
        let needs = services[name]["depends_on"].as_object().unwrap();
        let condition = |(name, need): (&String, &Value)| {
            (name.clone(), need["condition"].as_str().unwrap().to_owned())
        };
        needs.iter().map(condition).collect()
    };
    let needs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let owned = pairs
            .iter()
            .map(|(name, need)| ((*name).to_owned(), (*need).to_owned()));
        owned.collect()
    };
    assert_eq!(after("migrate"), needs(&[("postgres", "service_healthy")]));
    let made = "service_completed_successfully";
    assert_eq!(
        after("topics"),
        needs(&[("migrate", made), ("pubsub", "service_healthy")])
    );
    for name in ["api", "worker", "ticks"] {
        assert_eq!(
            after(name),
            needs(&[("migrate", made), ("topics", made)]),
            "{name}"
        );
    }
    for name in ["postgres", "pubsub"] {
        assert!(services[name]["healthcheck"]["test"].is_array(), "{name}");
        let image = services[name]["image"].as_str().unwrap();
        assert!(
            !image.ends_with(":latest") && image.contains(':'),
            "{image}"
        );
    }
}

#[test]
fn the_compose_file_keeps_to_itself_what_nobody_else_needs() {
    for (name, service) in services() {
        let Some(ports) = service["ports"].as_array() else {
            continue;
        };
        for port in ports {
            let port = port.as_str().unwrap();
            assert!(
                port.starts_with("127.0.0.1:"),
                "{name} listens to others: {port}"
            );
        }
    }
}
