//! Collects what was given in `nucleus.toml` and in the environment, and every problem with it.
//!
//! Everything is kept as raw text until the field's own type parses it. It must not know what a
//! setting means.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt::Display,
    fs::File,
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use super::{
    ConfigErrors, Problem,
    keys::{all_names, default_text, variable},
};

/// A secret's file and the configuration file may not be longer; neither comes near it.
const MAX_FILE_BYTES: u64 = 256 * 1024;
/// Variables of other programs that the defaults depend on.
const PLATFORM_VARIABLES: [&str; 5] = [
    "PORT",
    "HOME",
    "XDG_DATA_HOME",
    "PUBSUB_EMULATOR_HOST",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// Says that a value is missing because a problem was noted in the reader.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noted;

/// What was given, and what is wrong with it.
#[derive(Default)]
pub(super) struct Reader {
    given: BTreeMap<String, Given>,
    platform: BTreeMap<String, String>,
    asked: BTreeSet<String>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

/// A value as it was given, and the name under which a person finds it again.
struct Given {
    origin: String,
    value: Raw,
}

enum Raw {
    Text(String),
    List(Vec<String>),
}

impl Reader {
    /// Reads the file, if any, and then the variables, which win.
    pub(super) fn new(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let mut reader = Self::default();
        if let Some(path) = file {
            let layer = reader.read_file(path);
            reader.add_layer(layer);
        }
        let layer = reader.read_environment(environment);
        reader.add_layer(layer);
        reader
    }

    /// The value of `name` or, where none was given, its default; a problem if it has neither.
    pub(super) fn value<T, E: Display>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<T, Noted> {
        if let Some(value) = self.optional(name, &parse)? {
            return Ok(value);
        }
        let Some(text) = default_text(name) else {
            return Err(self.refuse(variable(name), "is missing"));
        };
        parse(text).map_err(|error| self.refuse(variable(name), error))
    }

    /// The value of `name`, if one was given.
    pub(super) fn optional<T, E: Display>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Noted> {
        self.asked.insert(name.to_owned());
        let Some(given) = self.given.get(name) else {
            return Ok(None);
        };
        let parsed = match &given.value {
            Raw::List(_) => Err("takes one value, not a list".to_owned()),
            Raw::Text(text) if text.trim().is_empty() => {
                Err("is empty: give a value or leave it out".to_owned())
            }
            Raw::Text(text) => parse(text).map_err(|error| error.to_string()),
        };
        let origin = given.origin.clone();
        match parsed {
            Ok(value) => Ok(Some(value)),
            Err(problem) => Err(self.refuse(origin, problem)),
        }
    }

    /// The values of `name`: a list in the file, separated by commas in a variable.
    pub(super) fn list<T, E: Display>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Vec<T>, Noted> {
        self.asked.insert(name.to_owned());
        let Some(given) = self.given.get(name) else {
            return Ok(Vec::new());
        };
        let texts: Vec<&str> = match &given.value {
            Raw::Text(text) => text.split(',').collect(),
            Raw::List(texts) => texts.iter().map(String::as_str).collect(),
        };
        let mut values = Vec::new();
        let mut refusals = Vec::new();
        for text in texts.into_iter().map(str::trim).filter(|t| !t.is_empty()) {
            match parse(text) {
                Ok(value) => values.push(value),
                Err(error) => refusals.push(error.to_string()),
            }
        }
        let origin = given.origin.clone();
        if refusals.is_empty() {
            return Ok(values);
        }
        for refusal in refusals {
            self.refuse(origin.clone(), refusal);
        }
        Err(Noted)
    }

    /// A variable of the platform, such as `PORT`, if it is set to something.
    pub(super) fn platform(&self, name: &str) -> Option<&str> {
        let text = self.platform.get(name)?;
        Some(text.as_str()).filter(|text| !text.is_empty())
    }

    /// Whether `name` was given at all.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// Notes a problem with a setting whose value alone does not show it.
    pub(super) fn refuse_setting(&mut self, name: &str, problem: impl Display) -> Noted {
        let origin = match self.given.get(name) {
            Some(given) => given.origin.clone(),
            None => variable(name),
        };
        self.refuse(origin, problem)
    }

    /// Notes a problem under the name that a person finds.
    pub(super) fn refuse(&mut self, name: impl Into<String>, problem: impl Display) -> Noted {
        self.problems.push(Problem {
            name: name.into(),
            problem: problem.to_string(),
        });
        Noted
    }

    /// Notes something that is odd and harmless.
    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// The configuration with the warnings, or all problems at once.
    pub(super) fn finish<T>(
        self,
        config: Result<T, Noted>,
    ) -> Result<(T, Vec<String>), ConfigErrors> {
        match config {
            Ok(config) if self.problems.is_empty() => Ok((config, self.warnings)),
            _ => Err(ConfigErrors(self.problems)),
        }
    }

    /// The names that were asked for, given or not.
    #[cfg(test)]
    pub(super) fn asked(&self) -> &BTreeSet<String> {
        &self.asked
    }

    fn read_environment(
        &mut self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> BTreeMap<String, Given> {
        let mut known = BTreeMap::new();
        for (name, is_secret) in all_names() {
            if is_secret {
                known.insert(format!("{}_FILE", variable(&name)), format!("{name}_file"));
            }
            known.insert(variable(&name), name);
        }
        let mut layer = BTreeMap::new();
        for (name, value) in environment {
            let readable_name = name.to_string_lossy().into_owned();
            let is_platform = PLATFORM_VARIABLES.contains(&readable_name.as_str());
            if !is_platform && !readable_name.starts_with("NUCLEUS_") {
                continue;
            }
            let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) else {
                self.refuse(readable_name, "is not valid UTF-8");
                continue;
            };
            if is_platform {
                self.platform.insert(name, value);
                continue;
            }
            if let Some(key) = known.get(&name) {
                let value = Raw::Text(value);
                layer.insert(
                    key.clone(),
                    Given {
                        origin: name,
                        value,
                    },
                );
                continue;
            }
            let hint = near_miss(&name, known.keys());
            if name.contains("__") {
                self.refuse(name, format!("is no setting{hint}"));
            } else {
                self.warn(format!(
                    "{name} is no setting of nucleus and is ignored{hint}"
                ));
            }
        }
        layer
    }

    fn read_file(&mut self, path: &Path) -> BTreeMap<String, Given> {
        let shown = path.display().to_string();
        let text = match read_text(path) {
            Ok(text) => text,
            Err(problem) => {
                self.refuse(shown, problem);
                return BTreeMap::new();
            }
        };
        let table: toml::Table = match toml::from_str(&text) {
            Ok(table) => table,
            Err(error) => {
                // The error's own text quotes the line, which may hold a secret.
                let start = error.span().map_or(0, |span| span.start);
                let line = 1 + text
                    .bytes()
                    .take(start)
                    .filter(|byte| *byte == b'\n')
                    .count();
                let problem = format!("line {line} is not TOML: {}", error.message());
                self.refuse(shown, problem);
                return BTreeMap::new();
            }
        };
        let file_name = path
            .file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy();
        let mut known = BTreeSet::new();
        for (name, is_secret) in all_names() {
            if is_secret {
                known.insert(format!("{name}_file"));
            }
            known.insert(name);
        }
        let mut layer = BTreeMap::new();
        self.flatten("", table, &known, &file_name, &mut layer);
        let secret = all_names()
            .into_iter()
            .find(|(name, is_secret)| *is_secret && layer.contains_key(name));
        if let Some((name, _)) = secret {
            self.warn_if_open_to_all(&format!("{name} in {file_name}"), path);
        }
        layer
    }

    /// A secret that everybody on the machine reads is none. What a platform mounts for the process is that
    /// platform's to guard, and so are files of another kind than regular ones.
    fn warn_if_open_to_all(&mut self, origin: &str, path: &Path) {
        let Ok(found) = path.metadata() else { return };
        let mode = found.permissions().mode() & 0o7777;
        let is_own = found.uid() == rustix::process::geteuid().as_raw();
        if is_own && found.is_file() && mode & 0o007 != 0 {
            let path = path.display();
            self.warn(format!(
                "{origin} is in {path}, which is open to everybody on this machine (mode {mode:04o}): \
                 run `chmod 600 {path}`"
            ));
        }
    }

    /// Turns nested tables into dotted names and values into text.
    fn flatten(
        &mut self,
        prefix: &str,
        table: toml::Table,
        known: &BTreeSet<String>,
        file_name: &str,
        layer: &mut BTreeMap<String, Given>,
    ) {
        for (key, value) in table {
            let name = format!("{prefix}{key}");
            let origin = format!("{name} in {file_name}");
            let section = format!("{name}.");
            let is_section = known
                .iter()
                .any(|known_name| known_name.starts_with(&section));
            match value {
                toml::Value::Table(inner) if is_section => {
                    self.flatten(&section, inner, known, file_name, layer);
                }
                _ if is_section => {
                    self.refuse(origin, format!("is a section: write [{name}]"));
                }
                value if known.contains(&name) => match raw_value(value) {
                    Some(value) => {
                        layer.insert(name, Given { origin, value });
                    }
                    None => {
                        self.refuse(origin, "must be a text, a number or a list of texts");
                    }
                },
                _ => {
                    let hint = near_miss(&name, known.iter());
                    self.refuse(origin, format!("is no setting{hint}"));
                }
            }
        }
    }

    /// Replaces each `…_file` by the file's content and lays the result over what is there.
    fn add_layer(&mut self, mut layer: BTreeMap<String, Given>) {
        for (name, is_secret) in all_names() {
            if !is_secret {
                continue;
            }
            let Some(file) = layer.remove(&format!("{name}_file")) else {
                continue;
            };
            if let Some(given) = layer.get(&name) {
                let problem = format!("is given beside {}: keep one of the two", given.origin);
                self.refuse(file.origin, problem);
                continue;
            }
            let Raw::Text(path) = &file.value else {
                self.refuse(file.origin, "takes one path, not a list");
                continue;
            };
            match read_text(Path::new(path)) {
                Ok(text) => {
                    self.warn_if_open_to_all(&file.origin, Path::new(path));
                    let value = Raw::Text(text.trim_end_matches(['\n', '\r']).to_owned());
                    let origin = file.origin;
                    layer.insert(name, Given { origin, value });
                }
                Err(problem) => {
                    self.refuse(file.origin, format!("names {path:?}, which {problem}"));
                }
            }
        }
        self.given.extend(layer);
    }
}

fn raw_value(value: toml::Value) -> Option<Raw> {
    match value {
        toml::Value::Array(items) => {
            let mut texts = Vec::new();
            for item in items {
                texts.push(scalar(item)?);
            }
            Some(Raw::List(texts))
        }
        other => Some(Raw::Text(scalar(other)?)),
    }
}

fn scalar(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

/// The file's text, or what is wrong with the file as the rest of a sentence about it.
fn read_text(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("is longer than {MAX_FILE_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "is not valid UTF-8".to_owned())
}

/// `, did you mean X?` where one of the known names is close enough to be meant.
fn near_miss<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> String {
    let nearest = known.min_by_key(|candidate| strsim::damerau_levenshtein(name, candidate));
    let allowed = (name.len() / 6).max(2);
    match nearest {
        Some(candidate) if strsim::damerau_levenshtein(name, candidate) <= allowed => {
            format!(", did you mean {candidate}?")
        }
        _ => String::new(),
    }
}
