//! A Secret Manager of the tests, as Google documents the calls, with what a test wants to go wrong. As
//! the real one it answers with the project's number, checks checksums and lists destroyed versions;
//! unlike it, its pages are short, and `latest` is always the first version.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::serve;

/// Versions on a page, whatever is asked for.
const PAGE: usize = 3;
/// What the project is called in answers, whatever it is called in requests.
pub const PROJECT_NUMBER: &str = "123456789012";

/// The calls that nucleus makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Create,
    Delete,
    Add,
    List,
    Get,
    Access,
    Destroy,
}

/// What goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// An error of the service, in Google's form.
    Refuse(u16, &'static str),
    /// As [`Fault::Refuse`] with 403, because the API is not enabled in the project.
    NotEnabled,
    /// An error that repeats what it was sent.
    Echo,
    /// An answer of something in between.
    Page(u16),
    /// An answer that is no answer to the call, and holds the payload.
    Garbage,
    /// It is done, and the answer says that it was not.
    Lost,
    /// No answer.
    Hang,
    /// The answer waits until the test lets it go.
    Wait(Arc<Notify>),
    /// The answer's checksum is that of something else.
    WrongChecksum,
    /// The answer has no checksum.
    NoChecksum,
}

/// A version of a secret.
#[derive(Debug, Clone)]
pub struct Version {
    pub data: Vec<u8>,
    /// `ENABLED`, `DISABLED` or `DESTROYED`.
    pub state: &'static str,
}

/// A secret.
#[derive(Debug, Clone)]
pub struct Secret {
    /// As it was created: labels and replication.
    pub made_of: Value,
    pub versions: Vec<Version>,
}

impl Secret {
    pub fn live(&self) -> usize {
        let versions = self.versions.iter();
        versions
            .filter(|version| version.state != "DESTROYED")
            .count()
    }
}

#[derive(Default)]
struct Inner {
    secrets: BTreeMap<String, Secret>,
    faults: VecDeque<(Call, Fault)>,
    /// Each call with its path, in order.
    calls: Vec<(Call, String)>,
    most_live: usize,
}

/// The double, while it lives.
#[derive(Clone, Default)]
pub struct SecretManagerDouble {
    inner: Arc<Mutex<Inner>>,
    pub url: String,
}

impl SecretManagerDouble {
    pub async fn start() -> Self {
        let inner = Arc::<Mutex<Inner>>::default();
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&inner));
        let url = serve(router).await;
        Self { inner, url }
    }

    /// The next `times` of these calls go wrong so.
    pub fn inject(&self, call: Call, fault: Fault, times: usize) {
        let mut inner = self.inner.lock().unwrap();
        for _ in 0..times {
            inner.faults.push_back((call, fault.clone()));
        }
    }

    /// Nothing goes wrong any more.
    pub fn mend(&self) {
        self.inner.lock().unwrap().faults.clear();
    }

    pub fn secrets(&self) -> BTreeMap<String, Secret> {
        self.inner.lock().unwrap().secrets.clone()
    }

    /// Changes what is stored, as somebody does by hand.
    pub fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Secret>)) {
        change(&mut self.inner.lock().unwrap().secrets);
    }

    /// How often a call was made.
    pub fn count(&self, call: Call) -> usize {
        let inner = self.inner.lock().unwrap();
        inner.calls.iter().filter(|(made, _)| *made == call).count()
    }

    /// Every call with its path.
    pub fn calls(&self) -> Vec<(Call, String)> {
        self.inner.lock().unwrap().calls.clone()
    }

    /// How many versions are live.
    pub fn live(&self) -> usize {
        self.secrets().values().map(Secret::live).sum()
    }

    /// The most versions of one secret that were live at the same time.
    pub fn most_live(&self) -> usize {
        self.inner.lock().unwrap().most_live
    }
}

async fn answer(
    State(inner): State<Arc<Mutex<Inner>>>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    let Some(asked) = Asked::read(&method, &uri) else {
        return refusal(404, "NOT_FOUND", &format!("{method} {path}"), None);
    };
    let fault = {
        let mut inner = inner.lock().unwrap();
        inner.calls.push((asked.call, path));
        let at = inner
            .faults
            .iter()
            .position(|(call, _)| *call == asked.call);
        at.and_then(|at| inner.faults.remove(at))
            .map(|(_, fault)| fault)
    };
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    match fault {
        Some(Fault::Refuse(status, code)) => refusal(status, code, "refused by the test", None),
        Some(Fault::NotEnabled) => {
            let message = "Secret Manager API has not been used in project 1 before";
            refusal(403, "PERMISSION_DENIED", message, Some("SERVICE_DISABLED"))
        }
        Some(Fault::Echo) => {
            let data = body["payload"]["data"].as_str().unwrap_or_default();
            let decoded = String::from_utf8(STANDARD.decode(data).unwrap()).unwrap();
            let message = format!("cannot take {data}, which is {decoded}");
            refusal(400, "INVALID_ARGUMENT", &message, None)
        }
        Some(Fault::Page(status)) => {
            let status = StatusCode::from_u16(status).unwrap();
            (status, format!("<html>{body}</html>")).into_response()
        }
        Some(Fault::Garbage) => {
            let given = inner.lock().unwrap().act(&asked, &body);
            let text = given.map(|value| value["payload"]["data"].clone());
            Json(json!({"name": 7, "payload": text.unwrap_or_default()})).into_response()
        }
        Some(Fault::Lost) => {
            let _done = inner.lock().unwrap().act(&asked, &body);
            refusal(503, "UNAVAILABLE", "the answer was lost", None)
        }
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Wait(until)) => {
            until.notified().await;
            respond(inner.lock().unwrap().act(&asked, &body))
        }
        Some(Fault::WrongChecksum) => {
            let given = inner.lock().unwrap().act(&asked, &body);
            respond(given.map(|mut value| {
                value["payload"]["dataCrc32c"] = json!("1");
                value
            }))
        }
        Some(Fault::NoChecksum) => {
            let given = inner.lock().unwrap().act(&asked, &body);
            respond(given.map(|mut value| {
                value["payload"]
                    .as_object_mut()
                    .unwrap()
                    .remove("dataCrc32c");
                value
            }))
        }
        None => respond(inner.lock().unwrap().act(&asked, &body)),
    }
}

/// Why a call is refused: status, code, message.
type Refused = (u16, &'static str, String);

fn respond(answer: Result<Value, Refused>) -> Response {
    match answer {
        Ok(value) => Json(value).into_response(),
        Err((status, code, message)) => refusal(status, code, &message, None),
    }
}

fn refusal(status: u16, code: &str, message: &str, reason: Option<&str>) -> Response {
    let mut error = json!({"code": status, "message": message, "status": code});
    if let Some(reason) = reason {
        error["details"] = json!([{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason,
            "domain": "googleapis.com",
        }]);
    }
    let status = StatusCode::from_u16(status).unwrap();
    (status, Json(json!({"error": error}))).into_response()
}

/// A request, taken apart.
struct Asked {
    call: Call,
    secret: String,
    version: String,
    page: usize,
}

impl Asked {
    fn read(method: &Method, uri: &Uri) -> Option<Self> {
        let path = uri.path().strip_prefix("/v1/projects/")?;
        let (_project, rest) = path.split_once("/secrets")?;
        let (rest, verb) = rest.split_once(':').unwrap_or((rest, ""));
        let parts: Vec<&str> = rest.trim_start_matches('/').split('/').collect();
        let query = |wanted: &str| {
            let pairs = url::form_urlencoded::parse(uri.query().unwrap_or("").as_bytes());
            let mut values = pairs.filter(|(name, _)| name == wanted);
            values.next().map(|(_, value)| value.into_owned())
        };
        let call = match (method.as_str(), parts.as_slice(), verb) {
            ("POST", [""], "") => Call::Create,
            ("DELETE", [_], "") => Call::Delete,
            ("POST", [_], "addVersion") => Call::Add,
            ("GET", [_, "versions"], "") => Call::List,
            ("GET", [_, "versions", _], "") => Call::Get,
            ("GET", [_, "versions", _], "access") => Call::Access,
            ("POST", [_, "versions", _], "destroy") => Call::Destroy,
            _ => return None,
        };
        let named = query("secretId").unwrap_or_else(|| parts[0].to_owned());
        Some(Self {
            call,
            secret: named,
            version: parts
                .get(2)
                .map(|text| (*text).to_owned())
                .unwrap_or_default(),
            page: query("pageToken")
                .and_then(|text| text.parse().ok())
                .unwrap_or(0),
        })
    }
}

impl Inner {
    fn act(&mut self, asked: &Asked, body: &Value) -> Result<Value, Refused> {
        let name = format!("projects/{PROJECT_NUMBER}/secrets/{}", asked.secret);
        let missing = || (404, "NOT_FOUND", format!("Secret [{name}] not found."));
        if asked.call == Call::Create {
            if self.secrets.contains_key(&asked.secret) {
                return Err((409, "ALREADY_EXISTS", format!("Secret [{name}] exists.")));
            }
            let secret = Secret {
                made_of: body.clone(),
                versions: Vec::new(),
            };
            self.secrets.insert(asked.secret.clone(), secret);
            return Ok(json!({"name": name}));
        }
        if asked.call == Call::Delete {
            return self
                .secrets
                .remove(&asked.secret)
                .map(|_| json!({}))
                .ok_or_else(missing);
        }
        let secret = self.secrets.get_mut(&asked.secret).ok_or_else(missing)?;
        if asked.call == Call::Add {
            let version = add(&name, secret, body)?;
            self.most_live = self.most_live.max(secret.live());
            return Ok(version);
        }
        if asked.call == Call::List {
            return Ok(page(&name, secret, asked.page));
        }
        // A `latest` that lags behind.
        let number = match asked.version.as_str() {
            "latest" => 1,
            text => text.parse().unwrap_or(0),
        };
        let index = usize::wrapping_sub(number, 1);
        let version = secret.versions.get_mut(index).ok_or_else(missing)?;
        let path = format!("{name}/versions/{number}");
        let in_state = format!("Secret Version [{path}] is in {} state.", version.state);
        match asked.call {
            Call::Access if version.state != "ENABLED" => {
                Err((400, "FAILED_PRECONDITION", in_state))
            }
            Call::Access => Ok(json!({
                "name": path,
                "payload": {
                    "data": STANDARD.encode(&version.data),
                    "dataCrc32c": checksum(&version.data).to_string(),
                },
            })),
            Call::Destroy if version.state == "DESTROYED" => {
                Err((400, "FAILED_PRECONDITION", in_state))
            }
            Call::Destroy => {
                version.state = "DESTROYED";
                version.data.clear();
                Ok(json!({"name": path, "state": version.state}))
            }
            _ => Ok(json!({"name": path, "state": version.state})),
        }
    }
}

fn add(name: &str, secret: &mut Secret, body: &Value) -> Result<Value, Refused> {
    let invalid = |message: &str| (400, "INVALID_ARGUMENT", message.to_owned());
    let payload = &body["payload"];
    let data = payload["data"].as_str().unwrap_or_default();
    let data = STANDARD.decode(data).map_err(|_| invalid("no base64"))?;
    if data.is_empty() || data.len() > 65_536 {
        return Err(invalid("The payload must have 1 to 65536 bytes."));
    }
    let sent = payload["dataCrc32c"].as_str().unwrap_or_default();
    if sent != checksum(&data).to_string() {
        return Err(invalid("The checksum does not fit."));
    }
    secret.versions.push(Version {
        data,
        state: "ENABLED",
    });
    let number = secret.versions.len();
    Ok(json!({"name": format!("{name}/versions/{number}"), "state": "ENABLED"}))
}

/// Newest first, as Google lists them.
fn page(name: &str, secret: &Secret, start: usize) -> Value {
    let count = secret.versions.len();
    let numbers = (1..=count).rev().skip(start).take(PAGE);
    let versions: Vec<Value> = numbers
        .map(|number| {
            let state = secret.versions[number - 1].state;
            json!({"name": format!("{name}/versions/{number}"), "state": state})
        })
        .collect();
    let next = match start + PAGE < count {
        true => (start + PAGE).to_string(),
        false => String::new(),
    };
    json!({"versions": versions, "nextPageToken": next, "totalSize": count})
}

/// CRC32C, bit by bit: another way than the program's.
fn checksum(data: &[u8]) -> u32 {
    let mut register = u32::MAX;
    for byte in data {
        register ^= u32::from(*byte);
        for _ in 0..8 {
            let odd = register & 1;
            register = (register >> 1) ^ (0x82f6_3b78 * odd);
        }
    }
    !register
}
