//! What Terraform would make of `infra/`, as Terraform itself says it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{tool, variable, words};

/// Something that Terraform would make.
pub struct Made {
    pub kind: String,
    pub address: String,
    pub values: Value,
}

impl Made {
    pub fn text(&self, key: &str) -> &str {
        self.values[key].as_str().unwrap()
    }
}

/// Everything that Terraform would make, and its outputs. What Google alone knows is a word that stands
/// for it, the same wherever it is used.
pub struct Plan {
    pub made: Vec<Made>,
    pub outputs: BTreeSet<String>,
}

impl Plan {
    pub fn read() -> Self {
        let schema = variable("NUCLEUS_TEST_TERRAFORM_SCHEMA");
        let script = "tests/it/delivery/terraform.py";
        let state: Value =
            serde_json::from_str(&tool("python", &[script, "infra", &schema])).unwrap();
        let resources = state["root_module"]["resources"].as_array().unwrap();
        let made = resources
            .iter()
            .filter(|resource| resource["mode"] == "managed");
        let made = made.map(|resource| Made {
            kind: resource["type"].as_str().unwrap().to_owned(),
            address: resource["address"].as_str().unwrap().to_owned(),
            values: resource["values"].clone(),
        });
        let outputs = state["outputs"].as_object().unwrap().keys().cloned();
        Self {
            made: made.collect(),
            outputs: outputs.collect(),
        }
    }

    pub fn all(&self, kind: &str) -> impl Iterator<Item = &Made> {
        self.made.iter().filter(move |made| made.kind == kind)
    }

    /// What has this value as its id, name or member.
    pub fn behind(&self, value: &str) -> Option<&Made> {
        let keys = ["id", "member", "name", "email"];
        let is_it = |made: &&Made| keys.iter().any(|key| made.values[*key] == value);
        self.made.iter().find(is_it)
    }

    /// Whom a member of a binding is: a service account of ours by its name, others as they are written.
    pub fn who(&self, member: &str) -> String {
        let ours = self.all("google_service_account");
        let mut ours = ours.filter(|account| account.values["member"] == member);
        let named = ours
            .next()
            .map(|account| account.text("account_id").to_owned());
        named.unwrap_or_else(|| member.to_owned())
    }

    /// The processes, each with its name.
    pub fn processes(&self) -> Vec<Process<'_>> {
        let kinds = [
            "google_cloud_run_v2_job",
            "google_cloud_run_v2_service",
            "google_cloud_run_v2_worker_pool",
        ];
        let made = self
            .made
            .iter()
            .filter(|made| kinds.contains(&made.kind.as_str()));
        let process = |made| Process::of(self, made);
        made.map(process).collect()
    }
}

pub struct Process<'p> {
    pub name: &'p str,
    pub account: String,
    pub command: Vec<String>,
    pub settings: BTreeMap<String, String>,
    /// Folder and secret.
    pub mounts: BTreeMap<String, String>,
}

impl<'p> Process<'p> {
    fn of(plan: &'p Plan, made: &'p Made) -> Self {
        let mut template = &made.values["template"][0];
        if made.kind.ends_with("_job") {
            template = &template["template"][0];
        }
        let container = &template["containers"][0];
        assert!(container["image"].as_str().unwrap().contains("@sha256:"));
        let account = plan.behind(template["service_account"].as_str().unwrap());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let settings = container["env"].as_array().unwrap().iter();
        let settings = settings.map(|pair| (text(&pair["name"]), text(&pair["value"])));
        let volumes = template["volumes"].as_array().unwrap().iter();
        let volumes: BTreeMap<String, String> = volumes
            .map(|volume| {
                let secret = &volume["secret"][0];
                assert_eq!(secret["items"][0]["path"], "value");
                (text(&volume["name"]), text(&secret["secret"]))
            })
            .collect();
        let mounts = container["volume_mounts"].as_array().unwrap().iter();
        let mounts = mounts.map(|mount| {
            let secret = volumes[mount["name"].as_str().unwrap()].clone();
            (text(&mount["mount_path"]), secret)
        });
        Self {
            name: made.text("name"),
            account: account.unwrap().text("account_id").to_owned(),
            command: words(&container["args"]),
            settings: settings.collect(),
            mounts: mounts.collect(),
        }
    }
}
