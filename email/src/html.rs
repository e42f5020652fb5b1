//! Sanitises the HTML of a mail with ammonia: an explicit allow list, nothing that loads or runs. It must only be
//! given HTML that `scan` found harmless to build a tree of.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use ammonia::{Builder, UrlRelative};

use super::scan::Scan;
use super::{WarningCode, Warnings};

/// Passes after which HTML has to have come to rest.
const MAX_PASSES: usize = 4;

/// Elements that stay. What is not listed goes; its content stays, except for [`DROPPED_WITH_CONTENT`].
const TAGS: [&str; 60] = [
    "a",
    "abbr",
    "address",
    "article",
    "aside",
    "b",
    "big",
    "blockquote",
    "br",
    "center",
    "cite",
    "code",
    "col",
    "colgroup",
    "dd",
    "del",
    "div",
    "dl",
    "dt",
    "em",
    "figcaption",
    "figure",
    "font",
    "footer",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "i",
    "img",
    "ins",
    "kbd",
    "li",
    "main",
    "ol",
    "p",
    "pre",
    "q",
    "s",
    "samp",
    "small",
    "span",
    "strike",
    "strong",
    "sub",
    "sup",
    "table",
    "tbody",
    "thead",
    "tfoot",
    "tt",
    "td",
    "th",
    "tr",
    "u",
    "ul",
];
/// Elements whose content is not text for a reader.
const DROPPED_WITH_CONTENT: [&str; 11] = [
    "script", "style", "title", "head", "template", "svg", "math", "iframe", "object", "textarea",
    "select",
];
/// Attributes of single elements. No `style`, `class`, `id`, `name`, `background` or event handler.
const ATTRIBUTES: [(&str, &[&str]); 7] = [
    ("a", &["href", "title"]),
    ("img", &["src", "alt", "title", "width", "height"]),
    ("td", &["colspan", "rowspan", "align", "valign"]),
    ("th", &["colspan", "rowspan", "align", "valign"]),
    ("ol", &["start", "type"]),
    ("col", &["span"]),
    ("colgroup", &["span"]),
];
/// Attributes of every element.
const GENERIC_ATTRIBUTES: [&str; 2] = ["dir", "lang"];
/// Schemes of links. Images may only point into the mail itself.
const LINK_SCHEMES: [&str; 3] = ["http:", "https:", "mailto:"];
const IMAGE_SCHEME: &str = "cid:";

static SANITISER: LazyLock<Builder<'static>> = LazyLock::new(|| {
    let mut attributes = HashMap::new();
    for (tag, names) in ATTRIBUTES {
        attributes.insert(tag, HashSet::from_iter(names.iter().copied()));
    }
    let mut builder = Builder::empty();
    builder
        .tags(HashSet::from(TAGS))
        .clean_content_tags(HashSet::from(DROPPED_WITH_CONTENT))
        .tag_attributes(attributes)
        .generic_attributes(HashSet::from(GENERIC_ATTRIBUTES))
        .url_schemes(HashSet::from(["http", "https", "mailto", "cid"]))
        .url_relative(UrlRelative::Deny)
        .link_rel(Some("noopener noreferrer nofollow"))
        .strip_comments(true)
        .attribute_filter(keep_attribute);
    builder
});

/// Ammonia's schemes hold for every attribute; here links and images part.
fn keep_attribute<'a>(_tag: &str, name: &str, value: &'a str) -> Option<Cow<'a, str>> {
    let allowed = match name {
        "href" => LINK_SCHEMES.iter().any(|scheme| starts_with(value, scheme)),
        "src" => starts_with(value, IMAGE_SCHEME),
        _ => true,
    };
    allowed.then_some(Cow::Borrowed(value))
}

fn starts_with(value: &str, scheme: &str) -> bool {
    value.len() >= scheme.len()
        && value.as_bytes()[..scheme.len()].eq_ignore_ascii_case(scheme.as_bytes())
}

/// Sanitised HTML, or none where that is not possible in bounded time; the reason is in the warnings.
pub(super) fn sanitise(html: &str, scan: &Scan, warnings: &mut Warnings) -> Option<String> {
    if let Some(reason) = scan.too_complex {
        warnings.add(
            WarningCode::LimitHtmlDepth,
            format!("the html has {reason} and was not kept"),
        );
        return None;
    }
    let visible = without(html, &scan.hidden);
    let cleaned = catch_unwind(AssertUnwindSafe(|| settle(&visible, scan.restructures)));
    match cleaned {
        Ok(Some(clean)) => Some(clean),
        Ok(None) => {
            warnings.add(
                WarningCode::HtmlUnstable,
                "the html changes each time it is sanitised and was not kept",
            );
            None
        }
        Err(_) => {
            warnings.add(
                WarningCode::ParserFailed,
                "the html sanitiser gave up; the html was not kept",
            );
            None
        }
    }
}

/// One pass comes to rest unless an element that is dropped had kept others apart; then passes go on until two agree.
fn settle(html: &str, restructures: bool) -> Option<String> {
    let mut clean = pass(html);
    if !restructures {
        return Some(clean);
    }
    for _ in 1..MAX_PASSES {
        let again = pass(&clean);
        if again == clean {
            return Some(clean);
        }
        clean = again;
    }
    None
}

fn pass(html: &str) -> String {
    let clean = SANITISER.clean(html).to_string();
    if !clean.contains(['\0', '\r']) {
        return clean;
    }
    // Written as references; the next parser would change them again.
    clean
        .replace('\0', "")
        .replace("\r\n", "\n")
        .replace('\r', "\n")
}

/// `html` without the ranges `hidden`, which are in order and apart.
fn without<'a>(html: &'a str, hidden: &[(usize, usize)]) -> Cow<'a, str> {
    if hidden.is_empty() {
        return Cow::Borrowed(html);
    }
    let mut visible = String::with_capacity(html.len());
    let mut position = 0;
    for &(start, end) in hidden {
        visible.push_str(&html[position..start]);
        position = end;
    }
    visible.push_str(&html[position..]);
    Cow::Owned(visible)
}

#[cfg(test)]
mod tests {
    use super::super::scan::scan;
    use super::*;

    fn clean(html: &str) -> String {
        let mut warnings = Warnings::default();
        sanitise(html, &scan(html, false), &mut warnings).unwrap()
    }

    #[test]
    fn harmless_structure_stays() {
        let html = "<h1>Title</h1><p>Some <b>bold</b> text</p><ul><li>one</li></ul>\
                    <table><tbody><tr><td colspan=\"2\">cell</td></tr></tbody></table>";
        assert_eq!(clean(html), html);
    }

    #[test]
    fn nothing_that_runs_or_loads_survives() {
        let payloads = [
            "<script>alert(1)</script>",
            "<p onclick=alert(1)>x</p>",
            "<a href=\"javascript:alert(1)\">x</a>",
            "<a href=\" java\nscript:alert(1)\">x</a>",
            "<a href=\"data:text/html,<script>1</script>\">x</a>",
            "<a href=\"//evil.example/x\">x</a>",
            "<img src=\"https://evil.example/pixel.gif\">",
            "<img src=x onerror=alert(1)>",
            "<img srcset=\"https://evil.example/a 1x\">",
            "<div style=\"background:url(https://evil.example/a)\">x</div>",
            "<style>@import url(https://evil.example/a.css);</style>",
            "<link rel=stylesheet href=https://evil.example/a.css>",
            "<meta http-equiv=refresh content=\"0;url=https://evil.example\">",
            "<base href=https://evil.example/>",
            "<form action=https://evil.example><input name=p><button>go</button></form>",
            "<svg onload=alert(1)><script>1</script><image href=https://evil.example/a></svg>",
            "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
            "<iframe src=https://evil.example></iframe>",
            "<object data=https://evil.example></object><embed src=https://evil.example>",
            "<video src=https://evil.example/a poster=https://evil.example/b></video>",
            "<table background=https://evil.example/a><tr><td background=https://evil.example/b>x",
            "<body background=https://evil.example/a>x",
            "<input type=image src=https://evil.example/a>",
            "<!--[if mso]><img src=https://evil.example/a><![endif]-->",
            "<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\">",
        ];
        let forbidden = [
            "evil.example",
            "javascript",
            "script:",
            "onerror",
            "onclick",
            "onload",
            "<script",
            "<style",
            "<svg",
            "<form",
            "<input",
            "<iframe",
            "<meta",
            "<base",
            "<link",
            "style=",
            "data:",
            "<video",
            "<!--",
        ];
        for payload in payloads {
            let html = clean(payload).to_ascii_lowercase();
            // Text that merely shows code is no code.
            for word in forbidden {
                assert!(!html.contains(word), "{payload} gave {html}");
            }
        }
    }

    #[test]
    fn links_and_images_of_the_mail_itself_stay() {
        assert_eq!(
            clean(
                "<a href=\"https://example.com/a?b=1&amp;c=2\">x</a><a href=mailto:a@example.com>y</a>"
            ),
            "<a href=\"https://example.com/a?b=1&amp;c=2\" rel=\"noopener noreferrer nofollow\">x</a>\
             <a href=\"mailto:a@example.com\" rel=\"noopener noreferrer nofollow\">y</a>"
        );
        assert_eq!(
            clean("<img src=\"cid:logo@x\" alt=Logo>"),
            "<img src=\"cid:logo@x\" alt=\"Logo\">"
        );
        assert_eq!(
            clean("<a href=\"cid:x\">x</a>"),
            "<a rel=\"noopener noreferrer nofollow\">x</a>"
        );
    }

    #[test]
    fn sanitising_again_changes_nothing() {
        for html in [
            "<p><button><p>a</p></button></p>",
            "<a href=https://x.example>a<svg><a>b</a></svg></a>",
            "<table><tr>x<td>y</table>",
            "<p><form><div><p>z</form>",
            "<pre>\n\n\nx</pre>",
            "<a><table><tr><td><a>x",
            "<b><p>x</b>y<i><div>z</i>",
            "<select><option>a<table><td>b",
            "x &lt;script&gt; &amp;amp; \u{a0}",
            "a&#13;b&#0;c&#13;&#10;",
            "<ul><li><ul><li>a</ul><p>b<marquee><p>c",
        ] {
            let once = clean(html);
            assert_eq!(clean(&once), once, "{html}");
        }
    }

    #[test]
    fn hidden_text_is_not_shown_by_taking_its_style_away() {
        assert_eq!(
            clean("<div style=\"display:none\">secret<img alt=secret></div><p>shown</p>"),
            "<div></div><p>shown</p>"
        );
    }
}
