//! The rules of `<style>` elements that decide whether text is seen. Names, classes and ids, also of elements around,
//! as they hold for a reader at a desk; other conditions are taken for not met. Nothing is fetched.

use std::collections::HashMap;

use super::style::{Style, plain};

/// Most bytes of style sheets that are read.
const MAX_SHEET_BYTES: usize = 256 << 10;
/// Most rules that name one element, class or id, and most of those with more conditions.
const MAX_SIMPLE_RULES: usize = 4_000;
const MAX_COMPOUND_RULES: usize = 200;
/// Most comparisons of elements with rules of more conditions; some hundredths of a second.
const MAX_COMPARISONS: usize = 2_000_000;
/// Most classes of one element, or conditions of one rule, that are looked at.
const MAX_CLASSES: usize = 16;

/// What is known of an element where rules are matched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) name: &'a str,
    pub(super) id: Option<&'a str>,
    pub(super) class: Option<&'a str>,
}

/// Conditions on one element.
#[derive(Debug, Default, PartialEq)]
struct Compound {
    name: Option<String>,
    id: Option<String>,
    classes: Vec<String>,
}

#[derive(Debug)]
struct Rule {
    /// The conditions on the element, then on those around it, inside out.
    compounds: Vec<Compound>,
    style: Style,
}

/// All rules of a mail.
#[derive(Debug, Default)]
pub(super) struct Sheet {
    names: HashMap<String, Style>,
    classes: HashMap<String, Style>,
    ids: HashMap<String, Style>,
    rules: Vec<Rule>,
    bytes: usize,
    comparisons: usize,
    /// Whether a limit was hit.
    pub(super) cut: bool,
}

impl Sheet {
    /// Adds the rules of a `<style>` element.
    pub(super) fn read(&mut self, css: &str) {
        let room = MAX_SHEET_BYTES - self.bytes;
        let within = &css[..css.floor_char_boundary(room)];
        self.cut |= within.len() < css.len();
        self.bytes += within.len();
        let text = plain(within);
        let text = text
            .trim_start()
            .trim_start_matches("<!--")
            .trim_end()
            .trim_end_matches("-->");
        self.rules(text);
    }

    fn rules(&mut self, css: &str) {
        let mut rest = css;
        while let Some(brace) = rest.find(['{', ';', '}']) {
            let (head, after) = (rest[..brace].trim(), &rest[brace + 1..]);
            if rest.as_bytes()[brace] != b'{' {
                // `@import` and its like, or the end of a block that was entered.
                rest = after;
                continue;
            }
            match head.strip_prefix('@') {
                Some(at) if at.starts_with("media") && is_desk(at) => rest = after,
                Some(_) => rest = after_block(after),
                None => {
                    let end = after.find('}').unwrap_or(after.len());
                    self.rule(head, &after[..end]);
                    rest = after.get(end + 1..).unwrap_or_default();
                }
            }
        }
    }

    fn rule(&mut self, selectors: &str, declarations: &str) {
        let mut base = Style::default();
        base.read(declarations, 0);
        if base == Style::default() {
            return;
        }
        for selector in selectors.split(',') {
            let Some(compounds) = compounds(selector) else {
                continue;
            };
            let mut style = Style::default();
            style.read(declarations, strength(&compounds));
            self.keep(compounds, style);
        }
    }

    fn keep(&mut self, mut compounds: Vec<Compound>, style: Style) {
        if let [Compound { name, id, classes }] = compounds.as_mut_slice() {
            let simple = match (name.take(), id.take(), classes.len()) {
                (Some(name), None, 0) => Some((&mut self.names, name)),
                (None, Some(id), 0) => Some((&mut self.ids, id)),
                (None, None, 1) => classes.pop().map(|class| (&mut self.classes, class)),
                (kept_name, kept_id, _) => {
                    (*name, *id) = (kept_name, kept_id);
                    None
                }
            };
            if let Some((map, key)) = simple {
                if map.len() < MAX_SIMPLE_RULES || map.contains_key(&key) {
                    map.entry(key).or_default().add(&style);
                } else {
                    self.cut = true;
                }
                return;
            }
        }
        if self.rules.len() < MAX_COMPOUND_RULES {
            self.rules.push(Rule { compounds, style });
        } else {
            self.cut = true;
        }
    }

    /// Adds to `style` what the rules say of an element; `around` gives those around it, inside out.
    pub(super) fn apply<'a, A: Iterator<Item = Named<'a>>>(
        &mut self,
        element: Named<'a>,
        around: impl Fn() -> A,
        style: &mut Style,
    ) {
        if !self.names.is_empty() {
            for name in ["*", element.name] {
                if let Some(rule) = self.names.get(name) {
                    style.add(rule);
                }
            }
        }
        if !self.classes.is_empty()
            && let Some(class) = element.class
        {
            for name in class.split_ascii_whitespace().take(MAX_CLASSES) {
                if let Some(rule) = self.classes.get(name) {
                    style.add(rule);
                }
            }
        }
        if !self.ids.is_empty()
            && let Some(rule) = element.id.and_then(|id| self.ids.get(id))
        {
            style.add(rule);
        }
        for rule in &self.rules {
            if self.comparisons >= MAX_COMPARISONS {
                self.cut = true;
                return;
            }
            self.comparisons += 1;
            let mut conditions = rule.compounds.iter();
            if !conditions.next().is_some_and(|own| own.matches(element)) {
                continue;
            }
            let mut wanted = conditions.next();
            for outer in around() {
                let Some(condition) = wanted else {
                    break;
                };
                self.comparisons += 1;
                if condition.matches(outer) {
                    wanted = conditions.next();
                }
            }
            if wanted.is_none() {
                style.add(&rule.style);
            }
        }
    }
}

impl Compound {
    fn matches(&self, element: Named<'_>) -> bool {
        let same = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        same(&self.name, Some(element.name))
            && same(&self.id, element.id)
            && self.classes.iter().all(|wanted| {
                let class = element.class.unwrap_or_default();
                class
                    .split_ascii_whitespace()
                    .take(MAX_CLASSES)
                    .any(|name| name == wanted)
            })
    }
}

/// Whether the condition of a media rule holds on a wide screen.
fn is_desk(condition: &str) -> bool {
    let lower = condition.to_ascii_lowercase();
    let other = [
        "print",
        "max-",
        "prefers",
        "orientation",
        "webkit",
        "-ms-",
        "-moz-",
        "not ",
        "speech",
        "handheld",
        "hover",
    ];
    !other.iter().any(|word| lower.contains(word))
}

/// What follows the block that was just entered.
fn after_block(css: &str) -> &str {
    let mut depth = 1_usize;
    for (at, byte) in css.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return &css[at + 1..];
        }
    }
    ""
}

/// The conditions of a selector, inside out; none where it has others than names, classes and ids.
fn compounds(selector: &str) -> Option<Vec<Compound>> {
    if selector.contains(['[', ':', '+', '~']) {
        return None;
    }
    let mut found = Vec::new();
    for part in selector.split([' ', '\t', '\n', '>']).rev() {
        if part.is_empty() {
            continue;
        }
        found.push(compound(part)?);
        if found.len() > MAX_CLASSES {
            return None;
        }
    }
    (!found.is_empty()).then_some(found)
}

fn compound(part: &str) -> Option<Compound> {
    let mut compound = Compound::default();
    let first = part.find(['.', '#']).unwrap_or(part.len());
    if first > 0 {
        compound.name = Some(part[..first].to_ascii_lowercase());
    }
    let mut rest = &part[first..];
    while let Some(mark) = rest.chars().next() {
        let end = rest[1..].find(['.', '#']).map_or(rest.len(), |end| end + 1);
        let word = rest[1..end].to_owned();
        rest = &rest[end..];
        if word.is_empty() || compound.classes.len() == MAX_CLASSES {
            return None;
        }
        if mark == '#' {
            compound.id = Some(word);
        } else {
            compound.classes.push(word);
        }
    }
    Some(compound)
}

/// How strongly a rule speaks: by its ids, else its classes, else its names.
fn strength(compounds: &[Compound]) -> u8 {
    if compounds.iter().any(|compound| compound.id.is_some()) {
        3
    } else if compounds
        .iter()
        .any(|compound| !compound.classes.is_empty())
    {
        2
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hides(css: &str) -> Option<bool> {
        let mut sheet = Sheet::default();
        sheet.read(css);
        let named = |name, id, class| Named { name, id, class };
        let mut style = Style::default();
        let around = [
            named("td", None, Some("body text")),
            named("table", Some("main"), None),
        ];
        sheet.apply(
            named("p", Some("x"), Some("a b")),
            || around.into_iter(),
            &mut style,
        );
        style.no_display.value()
    }

    #[test]
    fn rules_match_names_classes_ids_and_what_is_around() {
        for css in [
            "p{display:none}",
            ".b { display : none }",
            "#x{color:red;display:none}",
            "p.a.b{display:none}",
            "h1, .a, h2 {display:none}",
            "#main .text p {display:none}",
            "table > td > .a{display:none}",
            "<!-- .a{display:none} -->",
            "@import url(x.css); .a{display:none}",
            "@media screen { .c{} .a{display:none} } .d{}",
            "@media only screen and (min-width:600px){.a{display:none}}",
            "@font-face{src:url(x)} .a{display:none}",
            ".a{display:none!important} #x{display:block}",
            ".a{dis\\70 lay:none}",
            "*{display:none}",
        ] {
            assert_eq!(hides(css), Some(true), "{css}");
        }
        for css in [
            ".c{display:none}",
            "div p{display:none}",
            "p.a.c{display:none}",
            "@media print{.a{display:none}}",
            "@media (max-width:600px){.a{display:none} .b{display:none}}",
            "@media (max-width:600px){.a{display:none}} .a{color:red}",
            ".a:hover{display:none}",
            ".a[x]{display:none}",
            "p + .a{display:none}",
            "",
            "{",
            ".a{display",
        ] {
            assert_eq!(hides(css), None, "{css}");
        }
        assert_eq!(hides(".a{display:none} #x{display:block}"), Some(false));
        assert_eq!(hides("#x{display:block} p{display:none}"), Some(false));
    }

    #[test]
    fn a_flood_of_rules_is_cut() {
        let mut sheet = Sheet::default();
        let mut css = String::new();
        for number in 0..30_000 {
            css.push_str(&format!(".c{number}{{color:red}}"));
        }
        sheet.read(&css);
        assert!(sheet.cut && sheet.classes.len() <= MAX_SIMPLE_RULES);
    }
}
