//! What the declarations of a style say about whether text is seen: single declarations and how strongly each is
//! said. No selectors, no inheritance.

/// Shifts of this many pixels to the left or up put text off every screen.
const OFF_SCREEN_PX: f32 = -900.0;
/// What is more transparent than this cannot be read.
const FAINT: f32 = 0.05;
/// Longest name of a property that is looked at, in bytes.
const MAX_PROPERTY_BYTES: usize = 20;

/// How strongly attributes such as `bgcolor` speak.
pub(super) const PRESENTATION: u8 = 0;
/// How strongly a `style` attribute speaks; below it stand the rules of style sheets, for an element, a class, an id.
pub(super) const INLINE: u8 = 4;
/// What `!important` adds.
const IMPORTANT: u8 = 4;

/// A colour, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    Rgb(u8, u8, u8),
    Transparent,
    /// An image, a gradient, or none that can be read.
    Unknown,
}

/// The size of a font.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Font {
    /// In pixels.
    Pixels(f32),
    /// Times the size around it.
    Times(f32),
}

/// A value and how strongly it is said, if it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Said<T>(Option<(T, u8)>);

impl<T> Default for Said<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Copy> Said<T> {
    /// The value.
    pub(super) fn value(self) -> Option<T> {
        self.0.map(|(value, _)| value)
    }

    /// Says `value`, unless something else was said more strongly.
    pub(super) fn say(&mut self, value: T, strength: u8) {
        if self.0.is_none_or(|(_, before)| strength >= before) {
            self.0 = Some((value, strength));
        }
    }

    fn add(&mut self, other: Self) {
        if let Some((value, strength)) = other.0 {
            self.say(value, strength);
        }
    }
}

/// The part of a style that decides whether text is seen.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Style {
    pub(super) no_display: Said<bool>,
    pub(super) invisible: Said<bool>,
    pub(super) faint: Said<bool>,
    pub(super) font: Said<Font>,
    pub(super) colour: Said<Colour>,
    pub(super) background: Said<Colour>,
    /// In pixels.
    pub(super) width: Said<f32>,
    /// In pixels.
    pub(super) height: Said<f32>,
    narrow: Said<bool>,
    low: Said<bool>,
    overflow_hidden: Said<bool>,
    placed: Said<bool>,
    outside: Said<bool>,
    indented: Said<bool>,
    shifted: Said<bool>,
    cut_out: Said<bool>,
    shrunk: Said<bool>,
}

impl Style {
    /// Adds what `other` says.
    pub(super) fn add(&mut self, other: &Self) {
        self.no_display.add(other.no_display);
        self.invisible.add(other.invisible);
        self.faint.add(other.faint);
        self.font.add(other.font);
        self.colour.add(other.colour);
        self.background.add(other.background);
        self.width.add(other.width);
        self.height.add(other.height);
        self.narrow.add(other.narrow);
        self.low.add(other.low);
        self.overflow_hidden.add(other.overflow_hidden);
        self.placed.add(other.placed);
        self.outside.add(other.outside);
        self.indented.add(other.indented);
        self.shifted.add(other.shifted);
        self.cut_out.add(other.cut_out);
        self.shrunk.add(other.shrunk);
    }

    /// Adds the declarations `raw`.
    pub(super) fn read(&mut self, raw: &str, strength: u8) {
        if raw.contains('\\') || raw.contains("/*") {
            self.declarations(&plain(raw), strength);
        } else {
            self.declarations(raw, strength);
        }
    }

    fn declarations(&mut self, raw: &str, strength: u8) {
        for declaration in raw.split(';') {
            let Some((property, rest)) = declaration.split_once(':') else {
                continue;
            };
            let property = property.trim();
            let mut buffer = [0_u8; MAX_PROPERTY_BYTES];
            let Some(name) = buffer.get_mut(..property.len()) else {
                continue;
            };
            name.copy_from_slice(property.as_bytes());
            name.make_ascii_lowercase();
            let (value, important) = match rest.split_once('!') {
                Some((value, word)) => {
                    (value.trim(), word.trim().eq_ignore_ascii_case("important"))
                }
                None => (rest.trim(), false),
            };
            let strength = if important {
                strength + IMPORTANT
            } else {
                strength
            };
            self.declaration(name, value, strength);
        }
    }

    fn declaration(&mut self, property: &[u8], value: &str, strength: u8) {
        let is = |word: &str| value.eq_ignore_ascii_case(word);
        match property {
            b"display" => self.no_display.say(is("none"), strength),
            b"mso-hide" if is("all") => self.no_display.say(true, strength),
            b"visibility" => self.invisible.say(is("hidden") || is("collapse"), strength),
            b"opacity" => {
                if let Some(opacity) = share(value) {
                    self.faint.say(opacity < FAINT, strength);
                }
            }
            b"font-size" => {
                if let Some(size) = font_size(value) {
                    self.font.say(size, strength);
                }
            }
            b"font" => {
                if let Some(size) = value.split_ascii_whitespace().find_map(font_of_shorthand) {
                    self.font.say(size, strength);
                }
            }
            b"color" => {
                if let Some(colour) = colour(value) {
                    self.colour.say(colour, strength);
                }
            }
            b"background" | b"background-color" => {
                self.background.say(background(value), strength);
            }
            b"background-image" if !is("none") => self.background.say(Colour::Unknown, strength),
            b"width" => self.length(value, strength, true),
            b"height" => self.length(value, strength, false),
            b"max-width" => self.narrow.say(number(value) == Some(0.0), strength),
            b"max-height" => self.low.say(number(value) == Some(0.0), strength),
            b"overflow" | b"overflow-x" | b"overflow-y" => {
                self.overflow_hidden
                    .say(is("hidden") || is("clip"), strength);
            }
            b"position" => self.placed.say(is("absolute") || is("fixed"), strength),
            b"left" | b"top" => self.outside.say(is_far(value), strength),
            b"text-indent" => self.indented.say(is_far(value), strength),
            b"margin-left" | b"margin-top" => self.shifted.say(is_far(value), strength),
            b"clip" => self.cut_out.say(is_nothing(value), strength),
            b"clip-path" => {
                let nothing = is("inset(50%)") || is("inset(100%)") || is("circle(0)");
                self.cut_out.say(nothing, strength);
            }
            b"transform" => {
                let start = value.get(..7).unwrap_or_default();
                let nothing = start.eq_ignore_ascii_case("scale(0");
                self.shrunk.say(nothing && !value.contains('.'), strength);
            }
            _ => {}
        }
    }

    fn length(&mut self, value: &str, strength: u8, across: bool) {
        let Some(number) = number(value) else {
            return;
        };
        let pixels = if value.ends_with('%') && number > 0.0 {
            f32::MAX
        } else {
            number
        };
        if across {
            self.width.say(pixels, strength);
            self.narrow.say(number == 0.0, strength);
        } else {
            self.height.say(pixels, strength);
            self.low.say(number == 0.0, strength);
        }
    }

    /// Whether nothing is left of the box of the element.
    pub(super) fn is_clipped(&self) -> bool {
        let is = |said: Said<bool>| said.value() == Some(true);
        let flat = is(self.narrow) || is(self.low);
        (flat && is(self.overflow_hidden)) || is(self.cut_out) || is(self.shrunk)
    }

    /// Whether the element lies off every screen.
    pub(super) fn is_off_screen(&self) -> bool {
        let is = |said: Said<bool>| said.value() == Some(true);
        is(self.indented) || is(self.shifted) || (is(self.placed) && is(self.outside))
    }
}

fn is_far(value: &str) -> bool {
    number(value).is_some_and(|shift| shift < OFF_SCREEN_PX)
}

/// Whether a `clip` leaves nothing: four equal lengths.
fn is_nothing(value: &str) -> bool {
    let Some(inner) = value
        .strip_prefix("rect(")
        .and_then(|rest| rest.strip_suffix(')'))
    else {
        return false;
    };
    let mut lengths = inner
        .split([',', ' '])
        .filter(|word| !word.is_empty())
        .map(number);
    let Some(Some(first)) = lengths.next() else {
        return false;
    };
    lengths.all(|length| length == Some(first))
}

/// A number or a percentage, as a share of one.
fn share(value: &str) -> Option<f32> {
    let number = number(value)?;
    Some(if value.ends_with('%') {
        number / 100.0
    } else {
        number
    })
}

fn font_of_shorthand(word: &str) -> Option<Font> {
    let size = word.split('/').next().unwrap_or(word);
    let digits = size.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    let unit = size.ends_with(|last: char| last.is_ascii_alphabetic() || last == '%');
    if digits && unit {
        font_size(size)
    } else {
        None
    }
}

/// The size of a font; a word such as `inherit`, or a sum, says nothing.
fn font_size(value: &str) -> Option<Font> {
    let Some(size) = number(value) else {
        let known = [
            "small", "medium", "large", "x-small", "xx-small", "x-large", "xx-large", "smaller",
            "larger",
        ];
        let is_known = known.iter().any(|word| value.eq_ignore_ascii_case(word));
        return is_known.then_some(Font::Pixels(13.0));
    };
    let unit =
        value.trim_start_matches(|ch: char| ch.is_ascii_digit() || matches!(ch, '.' | '+' | '-'));
    if size <= 0.0 {
        return Some(Font::Pixels(0.0));
    }
    let is = |word: &str| unit.eq_ignore_ascii_case(word);
    if is("%") {
        return Some(Font::Times(size / 100.0));
    }
    if is("em") || is("ex") || is("ch") {
        return Some(Font::Times(size));
    }
    if is("rem") || is("vw") || is("vh") {
        return Some(Font::Pixels(size * 16.0));
    }
    if is("pt") {
        return Some(Font::Pixels(size * 4.0 / 3.0));
    }
    Some(Font::Pixels(size))
}

fn background(value: &str) -> Colour {
    let lower = value.to_ascii_lowercase();
    if lower.contains("url(") || lower.contains("gradient") || lower.contains("var(") {
        return Colour::Unknown;
    }
    if let Some(whole) = colour(value) {
        return whole;
    }
    let mut words = value.split_ascii_whitespace();
    words.find_map(colour).unwrap_or(Colour::Transparent)
}

/// A colour; none for a word that only repeats the one around, such as `inherit`.
pub(super) fn colour(value: &str) -> Option<Colour> {
    if let Some(digits) = value.strip_prefix('#') {
        return Some(hexadecimal(digits).unwrap_or(Colour::Unknown));
    }
    let lower = value.to_ascii_lowercase();
    if let Some(inner) = lower
        .strip_prefix("rgb")
        .and_then(|rest| rest.strip_suffix(')'))
    {
        let inner = inner.trim_start_matches('a').strip_prefix('(')?;
        return Some(components(inner).unwrap_or(Colour::Unknown));
    }
    let (red, green, blue) = match lower.as_str() {
        "transparent" => return Some(Colour::Transparent),
        "black" => (0, 0, 0),
        "white" => (255, 255, 255),
        "snow" => (255, 250, 250),
        "ivory" => (255, 255, 240),
        "ghostwhite" => (248, 248, 255),
        "floralwhite" => (255, 250, 240),
        "mintcream" => (245, 255, 250),
        "azure" => (240, 255, 255),
        "aliceblue" => (240, 248, 255),
        "whitesmoke" => (245, 245, 245),
        "gainsboro" => (220, 220, 220),
        "lightgray" | "lightgrey" => (211, 211, 211),
        "silver" => (192, 192, 192),
        "darkgray" | "darkgrey" => (169, 169, 169),
        "gray" | "grey" => (128, 128, 128),
        "red" => (255, 0, 0),
        "maroon" => (128, 0, 0),
        "yellow" => (255, 255, 0),
        "olive" => (128, 128, 0),
        "lime" => (0, 255, 0),
        "green" => (0, 128, 0),
        "aqua" | "cyan" => (0, 255, 255),
        "teal" => (0, 128, 128),
        "blue" => (0, 0, 255),
        "navy" => (0, 0, 128),
        "fuchsia" | "magenta" => (255, 0, 255),
        "purple" => (128, 0, 128),
        "orange" => (255, 165, 0),
        _ => return None,
    };
    Some(Colour::Rgb(red, green, blue))
}

fn hexadecimal(digits: &str) -> Option<Colour> {
    let number = u32::from_str_radix(digits, 16).ok()?;
    let byte = |shift: u32| ((number >> shift) & 255) as u8;
    let nibble = |shift: u32| ((number >> shift) & 15) as u8 * 17;
    let (rgb, alpha) = match digits.len() {
        3 => (Colour::Rgb(nibble(8), nibble(4), nibble(0)), 255),
        4 => (Colour::Rgb(nibble(12), nibble(8), nibble(4)), nibble(0)),
        6 => (Colour::Rgb(byte(16), byte(8), byte(0)), 255),
        8 => (Colour::Rgb(byte(24), byte(16), byte(8)), byte(0)),
        _ => return None,
    };
    Some(through(rgb, f32::from(alpha) / 255.0))
}

fn components(inner: &str) -> Option<Colour> {
    let mut parts = inner.split([',', ' ', '/']).filter(|part| !part.is_empty());
    let mut channel = || {
        let part = parts.next()?;
        let value = number(part)?;
        let value = if part.ends_with('%') {
            value * 2.55
        } else {
            value
        };
        // The cast keeps to the range of a byte.
        Some(value.round() as u8)
    };
    let rgb = Colour::Rgb(channel()?, channel()?, channel()?);
    let alpha = parts.next().and_then(share).unwrap_or(1.0);
    Some(through(rgb, alpha))
}

/// A colour of which only a share covers what is behind.
fn through(rgb: Colour, alpha: f32) -> Colour {
    if alpha < FAINT {
        Colour::Transparent
    } else if alpha < 1.0 {
        Colour::Unknown
    } else {
        rgb
    }
}

/// The number a value begins with.
pub(super) fn number(value: &str) -> Option<f32> {
    let end = value
        .find(|ch: char| !ch.is_ascii_digit() && !matches!(ch, '.' | '-' | '+'))
        .unwrap_or(value.len());
    value[..end].parse().ok()
}

/// A style without comments and escapes, the two ways to spell a property so that a naive reader misses it.
pub(super) fn plain(style: &str) -> String {
    let mut out = String::with_capacity(style.len());
    let mut rest = style;
    while let Some(ch) = rest.chars().next() {
        if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").map_or("", |(_, after)| after);
            continue;
        }
        rest = &rest[ch.len_utf8()..];
        if ch != '\\' {
            out.push(ch);
            continue;
        }
        let digits = rest
            .bytes()
            .take(6)
            .take_while(u8::is_ascii_hexdigit)
            .count();
        if digits == 0 {
            continue;
        }
        let code = u32::from_str_radix(&rest[..digits], 16).unwrap_or(0);
        out.extend(char::from_u32(code));
        rest = &rest[digits..];
        rest = rest.strip_prefix(' ').unwrap_or(rest);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &str) -> Style {
        let mut style = Style::default();
        style.read(raw, INLINE);
        style
    }

    #[test]
    fn display_is_known_however_it_is_spelt() {
        for raw in [
            "display:none",
            "color:red; DISPLAY : None !important",
            "dis\\70lay:none",
            "display/**/:no/* x */ne",
            "mso-hide:all",
            "display:block;display:none",
            "display:none!important;display:block",
        ] {
            assert_eq!(read(raw).no_display.value(), Some(true), "{raw}");
        }
        assert_eq!(
            read("display:none;display:block").no_display.value(),
            Some(false)
        );
    }

    #[test]
    fn boxes_of_no_size_and_places_off_screen_are_known() {
        for raw in [
            "max-height:0px;overflow:hidden",
            "overflow: hidden; width: 0",
            "clip:rect(0, 0, 0, 0)",
            "clip:rect(1px 1px 1px 1px)",
            "clip-path:inset(50%)",
            "transform:scale(0)",
        ] {
            assert!(read(raw).is_clipped(), "{raw}");
        }
        for raw in [
            "position:absolute;left:-9999px",
            "text-indent:-9999px",
            "margin-left:-9999px",
        ] {
            assert!(read(raw).is_off_screen(), "{raw}");
        }
        for raw in [
            "max-height:0",
            "overflow:hidden;height:auto",
            "left:-9999px",
            "text-indent:-10px",
            "clip:rect(0, 10px, 10px, 0)",
            "transform:scale(0.5)",
            "",
        ] {
            let style = read(raw);
            assert!(!style.is_clipped() && !style.is_off_screen(), "{raw}");
        }
    }

    #[test]
    fn opacity_and_fonts_are_measured() {
        for (raw, faint) in [
            ("opacity:0", true),
            ("opacity: 0.01", true),
            ("opacity:2%", true),
            ("opacity:.5", false),
        ] {
            assert_eq!(read(raw).faint.value(), Some(faint), "{raw}");
        }
        for (raw, font) in [
            ("font-size:0", Some(Font::Pixels(0.0))),
            ("font-size:1px", Some(Font::Pixels(1.0))),
            ("font:0px/0 a", Some(Font::Pixels(0.0))),
            ("font:bold 12px/1 Arial", Some(Font::Pixels(12.0))),
            ("font-size:0.5em", Some(Font::Times(0.5))),
            ("font-size:12pt", Some(Font::Pixels(16.0))),
            ("font-size:inherit", None),
        ] {
            assert_eq!(read(raw).font.value(), font, "{raw}");
        }
    }

    #[test]
    fn colours_are_known_in_every_spelling() {
        for (raw, expected) in [
            ("#fff", Some(Colour::Rgb(255, 255, 255))),
            ("#FEFEFE", Some(Colour::Rgb(254, 254, 254))),
            ("rgb(255, 0, 10)", Some(Colour::Rgb(255, 0, 10))),
            ("rgba(0,0,0,0)", Some(Colour::Transparent)),
            ("rgb(0 0 0 / 50%)", Some(Colour::Unknown)),
            ("White", Some(Colour::Rgb(255, 255, 255))),
            ("#ffffff00", Some(Colour::Transparent)),
            ("inherit", None),
            ("#xyz", Some(Colour::Unknown)),
        ] {
            assert_eq!(colour(raw), expected, "{raw}");
        }
        assert_eq!(
            read("background:url(a) #fff").background.value(),
            Some(Colour::Unknown)
        );
        assert_eq!(
            read("background:no-repeat #000").background.value(),
            Some(Colour::Rgb(0, 0, 0))
        );
    }
}
