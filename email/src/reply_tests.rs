//! Answers in many languages and styles: what was written, and where quotes and signatures begin.

use super::*;

/// What was written, and the first lines of the first quote and the first signature.
fn reply(text: &str) -> (String, Option<&str>, Option<&str>) {
    let cut = split(text, &mut Warnings::default());
    let mut ranges = [cut.quotes.clone(), cut.signatures.clone()].concat();
    ranges.sort_unstable();
    let first = |ranges: &[[usize; 2]]| {
        ranges
            .first()
            .map(|range| text[range[0]..].split('\n').next().unwrap())
    };
    (
        reply_text(text, &ranges),
        first(&cut.quotes),
        first(&cut.signatures),
    )
}

#[test]
fn text_without_quote_and_signature_is_left_alone() {
    for text in [
        "Hello,\n\nsee you at 10:30: bring tea.\nFrom: the shop\n",
        "",
    ] {
        assert_eq!(split(text, &mut Warnings::default()), Cut::default());
    }
}

#[test]
fn a_top_posted_answer_ends_at_the_attribution() {
    for attribution in [
        "On Mon, 15 Jun 2026 at 10:20, Ann Lee <ann@example.com> wrote:",
        "On Mon, 15 Jun 2026 at 10:20, Ann Lee <\nann@example.com> wrote:",
        "Am Mo., 15. Juni 2026 um 10:20 Uhr schrieb Ann Lee <ann@example.com>:",
        "Le lun. 15 juin 2026 à 10:20, Ann Lee <ann@example.com> a écrit :",
        "El lun, 15 jun 2026 a las 10:20, Ann Lee (<ann@example.com>) escribió:",
        "Il giorno lun 15 giu 2026 alle ore 10:20 Ann Lee <ann@example.com> ha scritto:",
        "Op ma 15 jun 2026 om 10:20 schreef Ann Lee <ann@example.com>:",
        "Em seg., 15 de jun. de 2026 às 10:20, Ann Lee <ann@example.com> escreveu:",
        "пн, 15 июн. 2026 г. в 10:20, Ann Lee <ann@example.com>:",
        "2026年6月15日(月) 10:20 Ann Lee <ann@example.com> 写道：",
        "W dniu 15.06.2026 o 10:20, Ann Lee pisze: Ann napisał(a):",
    ] {
        let first = attribution.split('\n').next().unwrap();
        for quote in ["> one\n> two", "one\ntwo"] {
            let text = format!("Yes.\n\nBest\n\n{attribution}\n\n{quote}");
            let (reply, at, _) = reply(&text);
            assert_eq!(
                (reply.as_str(), at),
                ("Yes.\n\nBest", Some(first)),
                "{text}"
            );
        }
    }
}

#[test]
fn answers_between_quotes_are_kept() {
    let text = "Ann wrote:\n> a?\nyes\n\n> b?\nno\n> c";
    assert_eq!(reply(text), ("yes\n\nno".into(), Some("Ann wrote:"), None));
}

#[test]
fn outlook_blocks_end_the_answer() {
    for block in [
        "-----Original Message-----\nFrom: Ann\nSent: Monday",
        "________________________________\nFrom: Ann <a@x>\nSent: Monday\nTo: B\nSubject: x",
        "From: Ann <a@x>\nSent: Monday\nTo: B\nSubject: x",
        "Von: Ann <a@x>\nGesendet: Montag\nAn: B\nBetreff: x",
        "*De :* Ann\n*Envoyé :* lundi\n*À :* B\n*Objet :* x",
        "---------- Forwarded message ---------\nFrom: Ann",
        "Begin forwarded message:\n\nFrom: Ann",
    ] {
        let text = format!("ok\n\n{block}\n\nold");
        let (reply, at, _) = reply(&text);
        assert_eq!(
            (reply.as_str(), at),
            ("ok", Some(block.split('\n').next().unwrap())),
            "{text}"
        );
    }
}

#[test]
fn signatures_are_marked() {
    assert_eq!(
        reply("hi\n\n-- \nAnn\nACME"),
        ("hi".into(), None, Some("-- "))
    );
    assert_eq!(
        reply("hi\n\nSent from my iPhone"),
        ("hi".into(), None, Some("Sent from my iPhone"))
    );
    assert_eq!(
        reply("hi\n-- \nAnn\n\nOn 15 Jun 2026, B <b@x> wrote:\n> q\n> -- \n> B"),
        (
            "hi".into(),
            Some("On 15 Jun 2026, B <b@x> wrote:"),
            Some("-- ")
        )
    );
    assert_eq!(reply("Sent from my garden, with love\nand tea").2, None);
}

#[test]
fn a_message_that_only_quotes_says_nothing_itself() {
    assert_eq!(reply("> a\n> b"), (String::new(), Some("> a"), None));
}

#[test]
fn every_quote_between_answers_has_its_range() {
    let text = "Ann wrote:\n> a?\n\n> more\nyes\n\n> b?\nno\n\n-- \nBob";
    let cut = split(text, &mut Warnings::default());
    let parts = |ranges: &[[usize; 2]]| {
        let mut parts = Vec::new();
        for &[start, end] in ranges {
            parts.push(text[start..end].to_owned());
        }
        parts
    };
    assert_eq!(
        parts(&cut.quotes),
        ["Ann wrote:\n> a?\n\n> more\n", "> b?\n"]
    );
    assert_eq!(parts(&cut.signatures), ["-- \nBob"]);
    assert_eq!(reply(text).0, "yes\n\nno");
}

#[test]
fn an_attribution_takes_no_line_of_the_answer_before_it() {
    for (text, expected) in [
        ("I agree.\nJohn wrote:\n> x\nno", "I agree.\n\nno"),
        ("In 2002 I said no.\nJohn wrote:\n> x", "In 2002 I said no."),
        (
            "Fine.\nOn Mon, 1 Jun 2026, Ann Lee\n<ann@example.com> wrote:\n> x",
            "Fine.",
        ),
        (
            "As you asked, here it is:\n\n> no\nyes",
            "As you asked, here it is:\n\nyes",
        ),
    ] {
        assert_eq!(reply(text).0, expected, "{text}");
    }
}

#[test]
fn people_introduce_quotes_in_ways_of_their_own() {
    for attribution in [
        "Ann Lee:",
        "Quoting Ann Lee (ann@example.com):",
        "Ann Lee (ann@example.com) wrote*:",
        "So then, Ann Lee <ann@example.com> is all like:",
        "Ann Lee stated the following:",
        "Ann Lee asked a strange question:",
        "--- Ann Lee <ann@example.com> wrote:",
        "Αnn έγραψε:",
        "ב-15 ביוני 2026, Ann כתבה:",
        "2026. jún. 15. 10:20 Ann <ann@example.com> ezt írta:",
        "15.06.2026 10:20, Ann пишет:",
    ] {
        let text = format!("{attribution}\n> one\nMine.");
        assert_eq!(reply(&text), ("Mine.".into(), Some(attribution), None));
    }
}

#[test]
fn initials_mark_quotes_and_prompts_do_not() {
    let text = "AL> one\nAL> two\nMine.\n\nftp> get\nftp> put\nB> alone";
    assert_eq!(reply(text).0, "Mine.\n\nftp> get\nftp> put\nB> alone");
    let bars = "On 1 Jun 2026, Ann <ann@example.com> wrote:\n| one\n| two\n\nMine.\n\n| a | b |\n| c | d |";
    assert_eq!(reply(bars).0, "Mine.\n\n| a | b |\n| c | d |");
}

#[test]
fn the_rest_of_a_wrapped_quote_is_quoted() {
    let long = "> a line that is so long that the next program has to break it before";
    let text = format!("{long}\nits end\n> more\nno");
    assert_eq!(reply(&text).0, "no");
    let answer = format!("{long}\nIts end\n> more");
    assert_eq!(reply(&answer).0, "Its end");
}

#[test]
fn an_original_that_is_quoted_or_ends_leaves_the_answer_below() {
    let text = "-----Original Message-----\nFrom: Ann\nSent: Monday\nTo: Bob\n\n> old\n\nMine.";
    assert_eq!(reply(text).0, "Mine.");
    let ended = "See:\n------- Forwarded Message\n\nFrom: Ann\n\nold\n\n------- End of Forwarded Message\n\nMine.";
    assert_eq!(reply(ended).0, "See:\n\nMine.");
    let returned = "It failed.\n------ This is a copy of the message, including all the headers. ------\n\nold";
    assert_eq!(reply(returned).0, "It failed.");
}

#[test]
fn footers_below_a_rule_are_signatures() {
    for footer in [
        "-------------------------------------------------------\nThis list is sponsored by: tea\nhttps://example.com",
        "_______________________________________________\nTea mailing list\nTea@example.com",
        "**********************\nThis message is confidential and may be legally privileged.",
        "------------------------ Yahoo! Groups Sponsor ---------------------~-->\nFour DVDs",
        "To unsubscribe from this group, send an email to:\ntea-unsubscribe@example.com",
        "Do You Yahoo!?\nhttps://example.com",
    ] {
        let text = format!("Mine.\n\n{footer}");
        let first = footer.split('\n').next();
        assert_eq!(reply(&text), ("Mine.".into(), None, first), "{text}");
    }
    let table = "Prices\n--------------------\ntea 3\ncake 4";
    assert_eq!(reply(table).2, None);
    let long = format!(
        "----------------\nTo unsubscribe, write.\n{}",
        "News.\n\n".repeat(40)
    );
    assert_eq!(reply(&long).2, None);
}

#[test]
fn what_a_server_was_told_is_no_quote() {
    let text = ">>> RCPT To:<a@example.com>\n<<< 550 no";
    assert_eq!(reply(text), (text.into(), None, None));
}

#[test]
fn ranges_are_bounded_and_the_rest_is_kept() {
    let text = "> a\nb\n".repeat(MAX_RANGES + 10);
    let mut warnings = Warnings::default();
    let cut = split(&text, &mut warnings);
    assert_eq!(cut.quotes.len(), MAX_RANGES);
    assert_eq!(warnings.list[0].code, WarningCode::LimitRanges);
    assert!(reply_text(&text, &cut.quotes).ends_with("> a\nb"));
}
