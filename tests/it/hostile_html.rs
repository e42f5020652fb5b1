//! HTML made to run, load or leave, in a real browser after the parser has had it: nothing happens. Made-up payloads
//! always, those of a corpus where `NUCLEUS_CORPUS` names one. What watches is first shown to see.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::{Path as UrlPath, State},
    http::header::{CONTENT_SECURITY_POLICY_REPORT_ONLY, CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use serde_json::Value;
use url::Url;

use crate::{
    browser::Browser,
    child::{PATIENCE, happens},
    doubles::serve,
};

/// Payloads on one page.
const BATCH: usize = 100;
/// Forbids everything and prevents nothing: each attempt is reported to the page, and would succeed.
const POLICY: &str = "default-src 'none'; script-src 'nonce-watch'; img-src cid:; form-action 'none'; base-uri 'none'";
/// Stands before everything else on the page and takes down what happens.
const WATCH: &str = r#"<!DOCTYPE html><meta charset="utf-8"><title>watched</title><script nonce="watch">
window.seen = [];
addEventListener('securitypolicyviolation', event =>
    seen.push(event.effectiveDirective + ' ' + event.blockedURI + ' ' + event.sample), true);
for (const name of ['alert', 'confirm', 'prompt', 'print', 'open'])
    window[name] = () => { seen.push(name + ' was called'); return null; };
addEventListener('beforeunload', () => seen.push('left'));
addEventListener('click', event => event.preventDefault(), true);
</script><body>"#;
/// Touches everything on the page as a person might, then says what is there that may not be and what was seen.
const TOUCH: &str = r#"
const events = ['click', 'dblclick', 'mousedown', 'mouseover', 'mouseenter', 'pointerover', 'wheel', 'focus', 'focusin',
    'keydown', 'copy', 'paste', 'drag', 'toggle', 'load', 'error', 'animationstart', 'transitionend', 'scroll', 'submit'];
const allowed = new Set(('a abbr address article aside b bdi bdo big blockquote br caption center cite code col colgroup ' +
    'dd del dfn div dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd li main mark nav ' +
    'ol p pre q s samp section small span strike strong sub sup table tbody td tfoot th thead tr tt u ul var wbr').split(' '));
const attributes = new Set(('href rel title src alt width height colspan rowspan align valign start type span dir lang')
    .split(' '));
const faults = [];
let count = 0;
for (const element of document.body.querySelectorAll('*')) {
    count += 1;
    const name = element.localName;
    if (!allowed.has(name) || element.namespaceURI !== 'http://www.w3.org/1999/xhtml') faults.push('<' + name + '>');
    for (const attribute of element.attributes)
        if (!attributes.has(attribute.name)) faults.push(name + ' ' + attribute.name + '=' + attribute.value);
    if (element.href !== undefined && !['http:', 'https:', 'mailto:'].includes(element.protocol)
        && element.hasAttribute('href')) faults.push(name + ' leads to ' + element.href);
    if (element.src && !element.src.startsWith('cid:')) faults.push(name + ' loads ' + element.src);
    for (const event of events) element.dispatchEvent(new Event(event, {bubbles: true, cancelable: true}));
}
return {count, faults, seen: window.seen, scripts: document.scripts.length, html: document.body.innerHTML.length};
"#;

/// Serves pages by number, each behind the watch, and an empty one.
struct Pages {
    url: String,
    pages: Arc<Mutex<Vec<String>>>,
}

impl Pages {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let pages = Arc::new(Mutex::new(Vec::new()));
        let show = async |UrlPath(number): UrlPath<usize>,
                          State(pages): State<Arc<Mutex<Vec<String>>>>| {
            let page = pages
                .lock()
                .unwrap()
                .get(number)
                .cloned()
                .unwrap_or_default();
            let headers = [
                (CONTENT_TYPE, "text/html; charset=utf-8"),
                (CONTENT_SECURITY_POLICY_REPORT_ONLY, POLICY),
            ];
            (headers, format!("{WATCH}{page}")).into_response()
        };
        let router = Router::new()
            .route("/page/{number}", get(show))
            .with_state(pages.clone());
        Self {
            url: serve(router).await,
            pages,
        }
    }

    /// The address of a page with this content.
    fn add(&self, content: String) -> String {
        let mut pages = self.pages.lock().unwrap();
        pages.push(content);
        format!("{}/page/{}", self.url, pages.len() - 1)
    }
}

/// What a page came to.
#[derive(Debug)]
struct Outcome {
    /// Attempts to run or load, and elements that may not be.
    faults: Vec<String>,
    requested: Vec<Url>,
    elements: u64,
    left: bool,
}

/// Opens a page, puts the parts into it by script, touches everything and looks.
async fn outcome(browser: &Browser, url: &str, parts: &[String]) -> Outcome {
    browser.requested().await;
    browser.open(url).await;
    if !parts.is_empty() {
        let list = serde_json::to_string(parts).unwrap();
        let script = format!(
            "for (const part of {list}) {{ const box = document.createElement('div'); document.body.append(box); \
             box.innerHTML = part; }}"
        );
        browser.script(&script).await;
    }
    let found = browser.script(TOUCH).await;
    // What was seen comes as tasks of the page; a second look is after them.
    let seen = browser
        .script("return window.seen || ['a page without a watch']")
        .await;
    let mut faults = Vec::new();
    for list in [&found["faults"], &seen] {
        for fault in list.as_array().unwrap() {
            faults.push(fault.as_str().unwrap().to_owned());
        }
    }
    if found["scripts"] != 1 {
        faults.push(format!("{} scripts", found["scripts"]));
    }
    // The browser looks for an icon of its own accord.
    faults.retain(|fault| !(fault.starts_with("img-src http") && fault.ends_with("/favicon.ico ")));
    let mut requested = browser.requested().await;
    // Images of the mail itself, and the page.
    requested.retain(|asked| {
        asked.scheme() != "cid" && asked.as_str() != url && asked.path() != "/favicon.ico"
    });
    Outcome {
        faults,
        requested,
        elements: found["count"].as_u64().unwrap(),
        left: browser.url().await.as_str() != url,
    }
}

/// Sanitised HTML of a payload by the way every mail takes; it is checked that a second time changes nothing.
fn sanitised(payload: &str) -> String {
    let read = |html: &str| {
        let raw = format!("Content-Type: text/html; charset=utf-8\n\n{html}");
        email::parse(raw.as_bytes()).html.unwrap_or_default()
    };
    let clean = read(payload);
    assert_eq!(read(&clean), clean, "{payload}");
    clean
}

#[expect(clippy::print_stdout, reason = "says how much was tried")]
async fn nothing_happens(payloads: &[String]) {
    let pages = Pages::start().await;
    let browser = Browser::start().await;
    let mut elements = 0;
    for batch in payloads.chunks(BATCH) {
        let mut clean = Vec::new();
        for payload in batch {
            clean.push(sanitised(payload));
        }
        let whole = pages.add(clean.join("<hr>"));
        let empty = pages.add(String::new());
        for (url, parts) in [(whole, &[][..]), (empty, &clean[..])] {
            let found = outcome(&browser, &url, parts).await;
            assert!(
                found.faults.is_empty() && found.requested.is_empty() && !found.left,
                "{found:?} by one of {batch:#?}, which became {clean:#?}"
            );
            elements += found.elements;
        }
    }
    println!(
        "{} payloads, {elements} elements on the pages",
        payloads.len()
    );
    assert!(
        elements as usize > payloads.len(),
        "hardly anything was left to look at"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watch_sees_what_runs_loads_and_leaves() {
    let pages = Pages::start().await;
    let browser = Browser::start().await;
    let image = "<img src=/planted.png>";
    let handler = "<p onclick='window.clicked = 1'>x</p>";
    for (payload, sign) in [
        (handler, "script-src-attr inline"),
        ("<img src=data:x onerror=alert(1)>", "was called"),
        ("<p style='color:red'>x</p>", "style-src-attr inline"),
        ("<svg><p>x</p></svg>", "<svg>"),
        ("<a href=javascript:alert(1)>x</a>", "leads to javascript:"),
        ("<form action=/x><button>x</button></form>", "<form>"),
    ] {
        let whole = pages.add(payload.to_owned());
        let empty = pages.add(String::new());
        for (url, parts) in [(whole, vec![]), (empty, vec![payload.to_owned()])] {
            let found = outcome(&browser, &url, &parts).await;
            let seen = found.faults.iter().any(|fault| fault.contains(sign));
            assert!(seen, "{payload} was not seen: {found:?}");
        }
    }
    let script = pages.add("<script>alert(1)</script>".to_owned());
    let found = outcome(&browser, &script, &[]).await;
    assert!(
        found.faults.iter().any(|fault| fault == "alert was called"),
        "{found:?}"
    );
    for parts in [vec![], vec![image.to_owned()]] {
        let page = pages.add(if parts.is_empty() {
            image.to_owned()
        } else {
            String::new()
        });
        let found = outcome(&browser, &page, &parts).await;
        assert_eq!(found.requested[0].path(), "/planted.png", "{found:?}");
    }
    let refresh = pages.add("<meta http-equiv=refresh content='0;url=/page/0'>".to_owned());
    browser.open(&refresh).await;
    let left = async || browser.url().await.path() == "/page/0";
    assert!(happens(PATIENCE, left).await, "{}", browser.url().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_of_every_kind_do_nothing() {
    let payloads = made_up();
    assert!(payloads.len() >= 300, "{}", payloads.len());
    nothing_happens(&payloads).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_payloads_of_the_corpus_do_nothing() {
    let Some(corpus) = std::env::var_os("NUCLEUS_CORPUS").map(PathBuf::from) else {
        println!("no corpus; the made-up payloads stand for it");
        return;
    };
    let payloads = collected(&corpus.join("xss"));
    assert!(payloads.len() > 1_000, "{}", payloads.len());
    nothing_happens(&payloads).await;
}

/// Payloads of a folder: one a line, one a line of JSON, or one a file.
fn collected(folder: &Path) -> Vec<String> {
    let mut payloads = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match path.extension().and_then(|end| end.to_str()) {
            Some("txt") => payloads.extend(text.lines().map(str::to_owned)),
            Some("jsonl") => {
                for line in text.lines() {
                    let value: Value = serde_json::from_str(line).unwrap();
                    payloads.push(value["payload"].as_str().unwrap().to_owned());
                }
            }
            _ => payloads.push(text),
        }
    }
    payloads
}

/// Payloads put together from what each way of attack is made of.
fn made_up() -> Vec<String> {
    let mut all = Vec::new();
    handlers(&mut all);
    addresses(&mut all);
    mutations(&mut all);
    loads(&mut all);
    all
}

fn handlers(all: &mut Vec<String>) {
    let elements = [
        "a",
        "b",
        "body",
        "button",
        "details open",
        "div",
        "font",
        "form",
        "iframe",
        "img src=x",
        "input autofocus",
        "marquee",
        "math",
        "object data=x",
        "p",
        "select autofocus",
        "svg",
        "table",
        "td",
        "textarea autofocus",
        "video src=x",
        "x",
        "audio src=x",
        "image src=x",
    ];
    let names = [
        "onerror",
        "onload",
        "ONCLICK",
        "onfocus",
        "onmouseover",
        "ontoggle",
        "onanimationstart",
        "onbegin",
    ];
    for (number, element) in elements.iter().enumerate() {
        for (other, name) in names.iter().enumerate() {
            // The ways to put an attribute into a tag.
            all.push(match (number + other) % 8 {
                0 => format!("<{element} {name}=alert(1)>x"),
                1 => format!("<{element}/{name}='alert(1)'>x"),
                2 => format!("<{element} a=\">\" {name}=\"alert(1)\">x"),
                3 => format!("<{element}\n{name}\t=\x0calert(1) //>x"),
                4 => format!("<{element} {name}=&#97;lert&lpar;1&rpar;>x"),
                5 => format!("<<{element} {name}=alert(1)<!-- >x-->"),
                6 => format!("<{element} x=`y {name}=alert(1)>x`"),
                _ => format!("<{element} \"{name}=alert(1)//\" {name}=alert(1) x"),
            });
        }
    }
}

fn addresses(all: &mut Vec<String>) {
    let schemes = [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        " \x01javascript:alert(1)",
        "java\tscript:alert(1)",
        "java&#10;script:alert(1)",
        "java&NewLine;script&colon;alert(1)",
        "&#x6A;avascript:alert(1)",
        "jav\u{ad}ascript:alert(1)",
        "vbscript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9YWxlcnQoMSk+",
        "view-source:javascript:alert(1)",
        "blob:x",
        "file:///etc/passwd",
        "//x.example/y",
        "\\\\x.example\\y",
        "https:x",
        "livescript:alert(1)",
    ];
    let carriers = [
        ("<a href=\"", "\">x</a>"),
        ("<a xlink:href=\"", "\">x</a>"),
        ("<svg><a xlink:href=\"", "\"><text>x</text></a></svg>"),
        ("<math href=\"", "\">x</math>"),
        ("<img src=\"", "\" alt=x>"),
        ("<iframe src=\"", "\"></iframe>"),
        ("<form action=\"", "\"><button>x"),
        ("<button formaction=\"", "\">x"),
        ("<object data=\"", "\">x"),
        ("<embed src=\"", "\">"),
        ("<base href=\"", "\"><a href=x>x</a>"),
        ("<meta http-equiv=refresh content=\"0;url=", "\">"),
        ("<blockquote cite=\"", "\">x"),
        ("<body background=\"", "\">x"),
    ];
    for (number, scheme) in schemes.iter().enumerate() {
        for (other, (before, after)) in carriers.iter().enumerate() {
            // A third of all pairs has every scheme and every carrier in it.
            if (number + other) % 3 == 0 {
                all.push(format!("{before}{scheme}{after}"));
            }
        }
    }
}

/// Shapes that a parser puts together differently the second time.
fn mutations(all: &mut Vec<String>) {
    let cores = [
        "<img src=x onerror=alert(1)>",
        "<script>alert(1)</script>",
        "<style><img src=x onerror=alert(1)></style>",
        "<svg onload=alert(1)>",
    ];
    let shapes = [
        "<noscript><p title=\"</noscript>@\">",
        "<math><mtext><table><mglyph><style><!--</style>@-->",
        "<math><mtext><mglyph><style><math>@",
        "<svg></p><style><a title=\"</style>@\">",
        "<svg><foreignobject><p><style><g title=\"</style>@\">",
        "<form><math><mtext></form><form><mglyph><style></math>@",
        "<template><style></template>@</style>",
        "<title><p title='</title>@'>",
        "<textarea><a title=\"</textarea>@\">",
        "<xmp><p title=\"</xmp>@\">",
        "<iframe><p title=\"</iframe>@\">",
        "<noembed><p title=\"</noembed>@\">",
        "<noframes><p title=\"</noframes>@\">",
        "<select><template>@</template></select>",
        "<select><style></select>@</style>",
        "<plaintext>@",
        "<!--><p>@-->",
        "<!---><p>@",
        "<!-- --!>@",
        "<![CDATA[>@]]>",
        "<svg><![CDATA[</svg>@]]>",
        "<?x >@?>",
        "<a title='&quot;>@'>x</a>",
        "<a title='`>@`'>x</a>",
        "&lt;x&gt;&amp;lt;@",
        "<table><td><form><table></form>@",
        "<a><table><td><a>@",
        "<pre>\n\n@</pre>",
        "<annotation-xml encoding='text/html'>@</annotation-xml>",
        "<math><annotation-xml encoding='text/html'><style>@</style>",
        "<desc>@</desc><svg><desc><style><a title='</style>@'>",
        "<frameset onload=alert(1)><frame src=javascript:alert(1)>@",
        "<x\u{0}y>@</x>",
        "<b><div><a><i></b>@</i></a>",
    ];
    for shape in shapes {
        for core in cores {
            all.push(shape.replace('@', core));
        }
    }
    let mut deep = String::new();
    for number in 0..600 {
        let _ = write!(
            deep,
            "<{}>",
            ["div", "b", "table", "td", "svg", "p"][number % 6]
        );
    }
    all.push(format!("{deep}<img src=x onerror=alert(1)>"));
}

/// What asks for something elsewhere without a script.
fn loads(all: &mut Vec<String>) {
    let target = "https://x.example/y";
    for shape in [
        "<img src=@>",
        "<img srcset='@ 1x'>",
        "<picture><source srcset=@><img></picture>",
        "<p style='background:url(@)'>x",
        "<p style='list-style-image:url(@)'>x",
        "<style>@import '@'; p{background:url(@)}</style><p>x",
        "<link rel=stylesheet href=@>",
        "<link rel=prefetch href=@>",
        "<link rel=dns-prefetch href=@>",
        "<table background=@><td background=@>x",
        "<input type=image src=@>",
        "<video poster=@><source src=@><track src=@></video>",
        "<audio src=@ autoplay>",
        "<object data=@></object>",
        "<embed src=@>",
        "<iframe src=@></iframe>",
        "<iframe srcdoc='<img src=@>'></iframe>",
        "<svg><image href=@></svg>",
        "<svg><use href=@></svg>",
        "<svg><style>*{fill:url(@)}</style></svg>",
        "<meta http-equiv=refresh content='0;url=@'>",
        "<base href=@><img src=z>",
        "<bgsound src=@>",
        "<a ping=@ href=https://x.example>x</a>",
        "<form action=@><input autofocus onfocus=submit()>",
        "<image src=@>",
        "<html manifest=@>",
        "<script src=@></script>",
        "<frameset><frame src=@></frameset>",
        "<portal src=@></portal>",
        "<isindex action=@ type=image src=@>",
        "<!--[if gte mso 9]><img src=@><![endif]-->x",
    ] {
        all.push(shape.replace('@', target));
    }
}
