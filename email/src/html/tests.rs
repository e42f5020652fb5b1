//! HTML as mail has it, from source to text, sanitised HTML and hidden text.

use super::*;

fn text(html: &str) -> String {
    read(html, true, &mut Warnings::default()).text
}

fn clean(html: &str) -> String {
    read(html, false, &mut Warnings::default()).clean
}

fn hidden(html: &str) -> (String, Vec<(HiddenKind, u64)>) {
    let mut warnings = Warnings::default();
    let found = read(html, true, &mut warnings);
    assert!(
        !found.clean.contains("secret"),
        "{html} gave {}",
        found.clean
    );
    let mut kinds = Vec::new();
    for hidden in &warnings.hidden {
        kinds.push((hidden.kind, hidden.size_bytes));
    }
    (found.text, kinds)
}

#[test]
fn blocks_become_paragraphs_and_lines() {
    assert_eq!(
        text(
            "<html><head><title>T</title><style>p{}</style></head><body><h1>Hi</h1>\n<p>One\n two</p><p>three<br>four<div>five</div><div>six</div>"
        ),
        "Hi\n\nOne two\n\nthree\nfour\n\nfive\nsix"
    );
}

#[test]
fn lists_are_marked_and_numbered() {
    assert_eq!(
        text("a<ul><li>one<li><p>two</p><ol start=3><li>x</li><li>y</li></ol></ul>b"),
        "a\n\n- one\n- two\n  3. x\n  4. y\n\nb"
    );
}

#[test]
fn cells_of_a_row_share_a_line() {
    assert_eq!(
        text(
            "<table><tr><th>Item</th><th>Price</th></tr><tr><td>Tea <td>3 €<tr><td></td><td>sum</td></tr></table>"
        ),
        "Item | Price\nTea | 3 €\nsum"
    );
}

#[test]
fn tables_that_only_place_things_are_blocks() {
    for (html, expected) in [
        (
            "<table><tr><td><table><tr><td>a</td><td>1</td></tr></table></td><td>side</td></tr></table>",
            "a | 1\n\nside",
        ),
        (
            "<table role=presentation><tr><td>a</td><td>b</td></tr></table>",
            "a\nb",
        ),
        (
            "<table><tr><td>a</td></tr><tr><td>b</td></tr></table>",
            "a\nb",
        ),
        (
            "<table role=presentation><tr><td><table><tr><td>x<td>y</table><p>z",
            "x | y\n\nz",
        ),
    ] {
        assert_eq!(text(html), expected, "{html}");
    }
}

#[test]
fn quotes_are_prefixed() {
    assert_eq!(
        text("yes<blockquote><p>a</p><p>b</p><blockquote>c</blockquote></blockquote>d"),
        "yes\n\n> a\n>\n> b\n>\n> > c\n\nd"
    );
}

#[test]
fn link_targets_are_written_once() {
    for (html, expected) in [
        (
            "<a href='https://x.example/a?b=1&amp;c'>here</a>",
            "here (https://x.example/a?b=1&c)",
        ),
        (
            "<a href='https://www.x.example/'>x.example</a>",
            "x.example",
        ),
        (
            "<a href='mailto:a@x.example?subject=b'>a@x.example</a>",
            "a@x.example",
        ),
        ("<a href='mailto:a@x.example'>Ann</a>", "Ann (a@x.example)"),
        (
            "<a href='#top'>up</a><a href='https://x.example/p'><img src=a></a>",
            "up",
        ),
        (
            "<a href='https://x.example/p'>one</a> <a href='https://x.example/p'>two</a>",
            "one (https://x.example/p) two",
        ),
    ] {
        assert_eq!(text(html), expected, "{html}");
    }
}

#[test]
fn preformatted_text_keeps_its_lines() {
    assert_eq!(text("<pre>\na  b\n  c</pre>d"), "a  b\n  c\n\nd");
    assert_eq!(text("<xmp><b> a\n  b</xmp>"), "<b> a\n  b");
}

#[test]
fn comments_scripts_and_broken_markup_are_no_text() {
    assert_eq!(
        text(
            "a<!-- b --><!--><script>if (a</b) c</script><![if !mso]>d<![endif]><a title='>'>e</a> 1 < 2 <img alt='L' f<"
        ),
        "ade 1 < 2"
    );
    assert_eq!(
        text("<script><!-- <script> </script> --></script>a<style>b</style><!--c--!>d<?e>f</ g>h"),
        "adfh"
    );
}

#[test]
fn images_are_their_descriptions_unless_they_cannot_be_seen() {
    assert_eq!(
        text("<img alt='A cat' src=https://x.example/a>b<img alt=Dot width=1 height=1>c"),
        "[A cat]bc"
    );
}

#[test]
fn hidden_text_is_left_out_and_found() {
    use HiddenKind::*;
    for (html, kind) in [
        ("<div style='display:none'>secret</div>", DisplayNone),
        ("<div hidden>secret</div>", DisplayNone),
        ("<p style='DISPLAY: none'>secret", DisplayNone),
        ("<div style='display&#58;none'>secret</div>", DisplayNone),
        (
            "<div style='display:none'><b>se<i>cret</i></b></div>",
            DisplayNone,
        ),
        (
            "<style>.x{display:none}</style><div class='a x'>secret</div>",
            DisplayNone,
        ),
        (
            "<style>@media print{p{color:red}}\n#h td{display:none}</style><table id=h><td>secret</table>",
            DisplayNone,
        ),
        (
            "<div style='display:none'><img alt=secret></div>",
            DisplayNone,
        ),
        ("<span style=\"font-size:0px\">secret</span>", TinyFont),
        (
            "<table><td style='font-size:1px;color:#fff'>secret</td></table>",
            TinyFont,
        ),
        (
            "<div style='visibility:hidden'><b>secret</b></div>",
            Invisible,
        ),
        ("<div style='opacity:0'>secret</div>", Invisible),
        ("<div style='color:#ffffff'>secret</div>", SameColour),
        ("<font color=white>secret</font>", SameColour),
        (
            "<table bgcolor='#eeeeee'><td><font color='#eeeeef'>secret</font></table>",
            SameColour,
        ),
        (
            "<body bgcolor=black><div style='color:#000'>secret</div>",
            SameColour,
        ),
        (
            "<div style='position:absolute;left:-9999px'>secret</div>",
            OffScreen,
        ),
        (
            "<div style='max-height:0;overflow:hidden'>secret</div>",
            Clipped,
        ),
        ("<!-- secret -->", Comment),
        ("<! secret>", Comment),
        ("<img width=1 height=1 alt=secret>", PixelAlt),
        ("<img style='width:0' alt=secret>", PixelAlt),
        ("<template>secret</template>", Other),
        ("<iframe>secret</iframe>", Other),
        ("<video>secret</video>", Other),
    ] {
        let (text, kinds) = hidden(&format!(
            "{html}<p style='color:#333;background:#fff'>shown</p>"
        ));
        assert_eq!(text, "shown", "{html}");
        assert_eq!(kinds, [(kind, 6)], "{html}");
    }
}

#[test]
fn what_a_reader_sees_is_not_taken_for_hidden() {
    for html in [
        "<table style='font-size:0'><tr><td style='font-size:14px'>shown</td></tr></table>",
        "<div style='visibility:hidden'><b style='visibility:visible'>shown</b></div>",
        "<table bgcolor=black><td style='color:white'>shown</table>",
        "<table><td style='background:url(x.png)'><font color=white>shown</font></table>",
        "<div aria-hidden=true>shown</div>",
        "<style>@media (max-width:600px){p{display:none}}</style><p>shown",
        "<style>.x{display:none}</style><p class=x style='display:block!important'>shown",
        "<div style='display:none'></div><div style='overflow:hidden;max-height:9px'>shown</div>",
        "<div style='font-size:1px'>\u{a0}\u{a0}</div>shown",
        "<!--[if mso]>words<![endif]--><![if !mso]>shown<![endif]>",
        "<noscript>shown</noscript>",
        "<noframes>shown</noframes>",
        "<frameset><frame></frameset>shown",
        "<object data=x>shown</object>",
        "<a href='https://x.example' style='background:#0000ee;color:#fff'><i>shown</i></a>",
    ] {
        let (found, kinds) = hidden(html);
        assert!(found.starts_with("shown"), "{html} gave {found}");
        assert_eq!(kinds, [], "{html}");
        assert!(clean(html).contains("shown"), "{html}");
    }
}

#[test]
fn harmless_structure_stays() {
    let html = "<h1>Title</h1><p>Some <b>bold</b> text</p><ul><li>one</li></ul>\
                <table><caption>c</caption><tbody><tr><td colspan=\"2\">cell</td></tr></tbody></table>";
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
        "<p id=x name=y class=z>",
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
        "id=",
        "name=",
        "class=",
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
    for (html, expected) in [
        (
            "<a href=\"https://example.com/a?b=1&amp;c=2\">x</a><a href=mailto:a@example.com>y</a>",
            "<a href=\"https://example.com/a?b=1&amp;c=2\" rel=\"noopener noreferrer nofollow\">x</a>\
             <a href=\"mailto:a@example.com\" rel=\"noopener noreferrer nofollow\">y</a>",
        ),
        (
            "<img src=\"cid:logo@x\" alt=Logo>",
            "<img src=\"cid:logo@x\" alt=\"Logo\">",
        ),
        ("<a href=\"cid:x\">x</a>", "x"),
        ("<img src=https://x.example/a alt=\"\">y", "y"),
        (
            "<img src=https://x.example/a alt='\"<b>'>y",
            "<img alt=\"&quot;&lt;b&gt;\">y",
        ),
    ] {
        assert_eq!(clean(html), expected);
    }
}

#[test]
fn sanitising_again_changes_nothing() {
    for html in [
        "<p><button><p>a</p></button></p>",
        "<a href=https://x.example>a<svg><a>b</a></svg></a>",
        "<a href=https://x.example>a<button><a href=https://y.example>b</a></button></a>",
        "<table><tr>x<td>y</table>",
        "<table><form><tr><td>y</form></table>",
        "<p><form><div><p>z</form>",
        "<pre>\n\n\nx</pre>",
        "<pre><!--x-->\n\nx</pre>",
        "<pre><span hidden>x</span>\nx</pre>",
        "<a href=https://x.example><table><tr><td><a href=https://y.example>x",
        "<b><p>x</b>y<i><div>z</i>",
        "<select><option>a<table><td>b",
        "x &lt;script&gt; &amp;amp; \u{a0}",
        "a&#13;b&#0;c&#13;&#10;",
        "<ul><li><ul><li>a</ul><p>b<marquee><p>c",
        " \n x",
        "<li><fieldset><li>x",
        "<dd><nav><dt>x<object><dd>y",
        "<h1><legend><h2>x</h2></legend></h1>",
        "<b><b><b><b><b>x</b></b></b></b></b>y",
        "<col><td>x<caption>y",
        "<table><colgroup>x<col><tbody><caption>y",
        "<template><td>x</template><svg><foreignObject><p>y",
        "<p>a<table><tr><td><p>b</table>c",
    ] {
        let mut warnings = Warnings::default();
        let once = read(html, false, &mut warnings).clean;
        assert_eq!(clean(&once), once, "{html}");
        assert!(warnings.list.is_empty(), "{html}: {:?}", warnings.list);
    }
}

#[test]
fn what_will_not_rest_is_kept_flat() {
    let (walked, _) = pass(
        "<h1>a</h1><table><tr><td>b<p>c <b>d</b></table>e",
        false,
        true,
    );
    assert_eq!(walked.clean.html, "a<br><br><br><br>b<br>c <b>d</b>e");
    assert!(!walked.clean.loose);
}

#[test]
fn what_lies_too_deep_flows_into_what_is_around_it() {
    let deep = format!(
        "{}text{}after",
        "<div>".repeat(5_000),
        "</div>".repeat(5_000)
    );
    let mut warnings = Warnings::default();
    let found = read(&deep, true, &mut warnings);
    assert_eq!(found.text, "text\nafter");
    assert_eq!(found.clean.matches("<div>").count(), crate::MAX_HTML_DEPTH);
    assert_eq!(warnings.list[0].code, WarningCode::LimitHtmlDepth);
    assert_eq!(clean(&found.clean), found.clean);
}

#[test]
fn formatting_left_open_cannot_multiply() {
    let fonts: String = (0..200).map(|size| format!("<font size={size}>")).collect();
    let html = format!("<p>{fonts}{}", "<p>x".repeat(20_000));
    let mut warnings = Warnings::default();
    let found = read(&html, true, &mut warnings);
    assert_eq!(warnings.list[0].code, WarningCode::LimitHtmlDepth);
    assert!(
        found.clean.len() < 2 * html.len() + crate::MAX_HTML_GROWTH,
        "{}",
        found.clean.len()
    );
    assert!(found.text.ends_with("x\n\nx"));
    assert_eq!(clean(&found.clean), found.clean);
}
