//! A real browser without a window: starts Debian's Chromium through its driver and asks it, over
//! WebDriver (<https://www.w3.org/TR/webdriver2/>) and the browser's own protocol, for what a person
//! would see, hear and do. It reaches this machine only. `scripts/test` installs it.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs,
    future::Future,
    io::{self, Read, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

use crate::child::{Child, PATIENCE, happens};

/// What an element is called on the wire (WebDriver, section 12).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// What a person can operate.
const CONTROLS: &str = "a, button, input:not([type=hidden]), select, textarea, summary, [role]";
/// Each text of the page that can be seen, with its contrast to what is behind it.
const CONTRAST: &str = include_str!("browser/contrast.js");
/// Keys by their codes (WebDriver, section 17.4.2).
pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";

/// The colours that a person's system asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Light,
    Dark,
}

impl Scheme {
    /// The value of `prefers-color-scheme`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

/// An element of the page that was open when it was found.
pub struct Element(String);

/// One browser with one window and an empty profile. It is gone when it is dropped.
pub struct Browser {
    http: reqwest::Client,
    /// Address of the session at the driver.
    session: String,
    /// Absent until the driver has started it.
    process: Option<Pid>,
    _driver: Child,
    _profile: TempDir,
}

impl Browser {
    /// Starts one.
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").env("HOME", profile.path());
        let mut driver = Child::spawn(command);
        driver.says("started successfully on port").await;
        let said = driver.stdout();
        let (_, port) = said.rsplit_once("on port ").unwrap();
        let port: u16 = port.trim().trim_end_matches('.').parse().unwrap();
        let folder = format!("--user-data-dir={}", profile.path().display());
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "timeouts": {"pageLoad": PATIENCE.as_millis(), "script": PATIENCE.as_millis()},
            "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"},
            "goog:chromeOptions": {"args": [
                "--headless=new",
                // The sandbox does not work for root, nor in most containers.
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-quic",
                "--no-proxy-server",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-default-apps",
                // Whatever is asked of another machine fails at once.
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
                folder,
            ]},
        }}});
        let mut this = Self {
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            session: format!("http://127.0.0.1:{port}/session"),
            process: None,
            _driver: driver,
            _profile: profile,
        };
        let begun = this.call("POST", "", capabilities).await;
        let id = begun["sessionId"].as_str().unwrap();
        let process = begun["capabilities"]["goog:processID"].as_i64().unwrap();
        this.session = format!("{}/{id}", this.session);
        this.process = Some(Pid::from_raw(i32::try_from(process).unwrap()));
        // The browser's own first page asks for more than it gets.
        this.open("about:blank").await;
        this.log("performance").await;
        this.log("browser").await;
        this
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        match self.try_call(method, path, body).await {
            Ok(value) => value,
            Err(error) => panic!("{method} {path}: {}: {}", error["error"], error["message"]),
        }
    }

    /// What the driver answers, or its error.
    async fn try_call(&self, method: &str, path: &str, body: Value) -> Result<Value, Value> {
        let request = self
            .http
            .request(method.parse().unwrap(), format!("{}{path}", self.session))
            .timeout(2 * PATIENCE);
        let request = match method {
            "POST" => request.body(body.to_string()),
            _ => request,
        };
        let response = request.send().await.unwrap();
        let is_good = response.status().is_success();
        let body = response.bytes().await.unwrap();
        let mut answer: Value = serde_json::from_slice(&body).unwrap();
        let value = answer["value"].take();
        if is_good { Ok(value) } else { Err(value) }
    }

    async fn get(&self, path: &str) -> Value {
        self.call("GET", path, Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.call("POST", path, body).await
    }

    async fn text_of(&self, path: &str) -> String {
        self.get(path).await.as_str().unwrap().to_owned()
    }

    /// A command of the browser's own protocol
    /// (<https://chromedevtools.github.io/devtools-protocol/>).
    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({"cmd": command, "params": parameters});
        self.post("/goog/cdp/execute", body).await
    }

    /// Opens a page and waits until it is loaded, wherever redirects lead.
    pub async fn open(&self, url: &str) {
        self.post("/url", json!({"url": url})).await;
    }

    /// The address of the page.
    pub async fn url(&self) -> Url {
        self.text_of("/url").await.parse().unwrap()
    }

    /// The text that can be seen.
    pub async fn text(&self) -> String {
        let body = self.find("body").await;
        self.text_of(&format!("/element/{}/text", body.0)).await
    }

    /// The one element that a CSS selector matches.
    pub async fn find(&self, css: &str) -> Element {
        let mut found = self.find_all(css).await;
        assert_eq!(found.len(), 1, "{css} on {}", self.url().await);
        found.remove(0)
    }

    async fn find_all(&self, css: &str) -> Vec<Element> {
        let query = json!({"using": "css selector", "value": css});
        let found = self.post("/elements", query).await;
        let id = |element: &Value| Element(element[ELEMENT].as_str().unwrap().to_owned());
        found.as_array().unwrap().iter().map(id).collect()
    }

    /// The one control that a screen reader announces with this role and name.
    pub async fn control(&self, role: &str, name: &str) -> Element {
        let (mut found, mut there) = (Vec::new(), Vec::new());
        for element in self.find_all(CONTROLS).await {
            let announced = self.announced(&element).await;
            if announced == (role.to_owned(), name.to_owned()) {
                found.push(element);
            }
            there.push(announced);
        }
        assert_eq!(found.len(), 1, "{role} {name:?} among {there:?}");
        found.remove(0)
    }

    /// An element's role and accessible name. Some versions leave spaces around names.
    async fn announced(&self, element: &Element) -> (String, String) {
        let path = format!("/element/{}", element.0);
        let role = self.text_of(&format!("{path}/computedrole")).await;
        let name = self.text_of(&format!("{path}/computedlabel")).await;
        (role, name.trim().to_owned())
    }

    /// The role and the name of what has the focus.
    pub async fn focused(&self) -> (String, String) {
        let active = self.get("/element/active").await;
        let element = Element(active[ELEMENT].as_str().unwrap().to_owned());
        self.announced(&element).await
    }

    /// Clicks on what leads to another page, and waits for that.
    pub async fn follow(&self, role: &str, name: &str) {
        let element = self.control(role, name).await;
        self.leave(self.click(&element)).await;
    }

    /// Does what leads to another page, and waits until that is loaded: the driver may answer before
    /// the browser sets out.
    pub async fn leave(&self, act: impl Future<Output = ()>) {
        // When the page that is loaded began.
        let script = "return document.readyState === 'complete' && performance.timeOrigin";
        let began = json!({"script": script, "args": []});
        let before = self.post("/execute/sync", began.clone()).await;
        act.await;
        let mut last = Ok(Value::Null);
        let left = happens(PATIENCE, async || {
            // On the way from one page to the next there may be none to ask.
            last = self.try_call("POST", "/execute/sync", began.clone()).await;
            matches!(&last, Ok(now) if now.is_number() && *now != before)
        });
        assert!(left.await, "still at {}: {last:?}", self.url().await);
    }

    /// Clicks on what leads nowhere else.
    pub async fn click(&self, element: &Element) {
        let path = format!("/element/{}/click", element.0);
        self.post(&path, json!({})).await;
    }

    /// Types into a field.
    pub async fn fill(&self, element: &Element, text: &str) {
        let path = format!("/element/{}/value", element.0);
        self.post(&path, json!({"text": text})).await;
    }

    /// Presses a key and lets it go, wherever the focus is.
    pub async fn press(&self, key: &str) {
        let actions = json!([
            {"type": "keyDown", "value": key},
            {"type": "keyUp", "value": key},
        ]);
        let keyboard = json!([{"type": "key", "id": "keyboard", "actions": actions}]);
        self.post("/actions", json!({"actions": keyboard})).await;
    }

    /// Sets the size of the page, in CSS pixels, narrower than a window can be.
    pub async fn resize(&self, width: u32, height: u32) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", size)
            .await;
    }

    /// Sets the colours that are asked for.
    pub async fn prefer(&self, scheme: Scheme) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme.name()}]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features}))
            .await;
    }

    /// Runs a script in the page as its developer would from the console; gives what it returns. The
    /// page's policy holds for whatever it makes the page do.
    pub async fn script(&self, script: &str) -> Value {
        let body = json!({"script": script, "args": []});
        self.post("/execute/sync", body).await
    }

    /// The texts whose contrast to their background is lower than `ratio`, as WCAG 2.2 reckons it.
    pub async fn low_contrast(&self, ratio: f64) -> Vec<Value> {
        let measured = self.script(CONTRAST).await;
        let texts = measured.as_array().unwrap();
        assert!(!texts.is_empty(), "no text on {}", self.url().await);
        let is_low = |text: &&Value| text["contrast"].as_f64().unwrap() < ratio;
        texts.iter().filter(is_low).cloned().collect()
    }

    /// How many CSS pixels the page is wider than the window.
    pub async fn overflow(&self) -> i64 {
        let script =
            "const page = document.documentElement; return page.scrollWidth - page.clientWidth";
        self.script(script).await.as_i64().unwrap()
    }

    /// Writes what can be seen into `screenshots/` in the target folder.
    pub async fn screenshot(&self, name: &str) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("screenshots");
        let encoded = self.text_of("/screenshot").await;
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{name}.png"));
        fs::write(file, STANDARD.decode(encoded).unwrap()).unwrap();
    }

    /// The accessibility tree as a screen reader gets it: a line for each node with its role, its name
    /// and what can be said of it, indented below its parent.
    pub async fn tree(&self) -> String {
        let tree = self
            .devtools("Accessibility.getFullAXTree", json!({}))
            .await;
        let nodes = tree["nodes"].as_array().unwrap();
        let id = |node: &Value| node["nodeId"].as_str().unwrap().to_owned();
        let by_id = nodes.iter().map(|node| (id(node), node)).collect();
        let mut lines = String::new();
        write_node(&mut lines, &nodes[0], &by_id, Place::default());
        lines
    }

    /// The addresses that were asked of servers since this was last called.
    pub async fn requested(&self) -> Vec<Url> {
        let mut requested = Vec::new();
        for entry in self.log("performance").await {
            let text = entry["message"].as_str().unwrap();
            let event: Value = serde_json::from_str(text).unwrap();
            let event = &event["message"];
            if event["method"] == "Network.requestWillBeSent" {
                let url = event["params"]["request"]["url"].as_str().unwrap();
                requested.push(url.parse().unwrap());
            }
        }
        requested.retain(|url: &Url| !matches!(url.scheme(), "about" | "blob" | "chrome" | "data"));
        requested
    }

    /// What the console was told since this was last called: errors, and what a policy forbade.
    pub async fn console(&self) -> Vec<String> {
        let entries = self.log("browser").await;
        let message = |entry: &Value| entry["message"].as_str().unwrap().to_owned();
        entries.iter().map(message).collect()
    }

    /// Ends the session, and the browser with it, and waits for that.
    fn quit(&self) -> io::Result<()> {
        let session = Url::parse(&self.session).map_err(io::Error::other)?;
        let address = session.socket_addrs(|| None)?;
        let mut driver = TcpStream::connect(&address[..])?;
        driver.set_read_timeout(Some(Duration::from_secs(10)))?;
        let path = session.path();
        let host = &address[0];
        write!(
            driver,
            "DELETE {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )?;
        // It answers when the browser is gone, and keeps the connection.
        driver.read_exact(&mut [0])
    }

    async fn log(&self, kind: &str) -> Vec<Value> {
        let mut entries = self.post("/se/log", json!({"type": kind})).await;
        entries.as_array_mut().unwrap().drain(..).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // In order, so that none of its processes is left writing into the folder that goes next.
        let _killed_then = self.quit();
        // The driver would leave it behind.
        if let Some(process) = self.process {
            let _gone_already = kill(process, Signal::SIGKILL);
        }
    }
}

/// Writes a node of the accessibility tree and those below it. What only lays out the page is left
/// out, and so is a text that is the name of what it stands in.
fn write_node(lines: &mut String, node: &Value, by_id: &HashMap<String, &Value>, place: Place<'_>) {
    let role = node["role"]["value"].as_str().unwrap_or_default();
    let name = node["name"]["value"].as_str().unwrap_or_default().trim();
    if role == "InlineTextBox" || (role == "StaticText" && name == place.inside) {
        return;
    }
    let mut below = place;
    if node["ignored"] != true && !matches!(role, "none" | "generic") {
        write!(lines, "{}{role}", "  ".repeat(place.depth)).unwrap();
        if !name.is_empty() {
            write!(lines, " {name:?}").unwrap();
        }
        for property in node["properties"].as_array().into_iter().flatten() {
            let what = property["name"].as_str().unwrap();
            let value = &property["value"]["value"];
            if matches!(what, "level" | "checked" | "invalid" | "disabled") && value != "false" {
                let value = value.as_str().map_or(value.to_string(), str::to_owned);
                write!(lines, " {what}={value}").unwrap();
            }
        }
        lines.push('\n');
        below = Place {
            depth: place.depth + 1,
            inside: name,
        };
    }
    for child in node["childIds"].as_array().into_iter().flatten() {
        // A node may name children that belong to another document.
        if let Some(child) = by_id.get(child.as_str().unwrap()) {
            write_node(lines, child, by_id, below);
        }
    }
}

/// Where in the tree a node stands.
#[derive(Clone, Copy, Default)]
struct Place<'a> {
    depth: usize,
    /// The name of the node above.
    inside: &'a str,
}
