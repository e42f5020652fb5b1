//! What an inline style and a few attributes say about visibility. It reads single declarations only: no style
//! sheets, no cascade, no layout.

/// Fonts up to this size, in pixels, are not meant to be read.
const UNREADABLE_PX: f32 = 1.0;
/// Shifts of this many pixels to the left or top put text off every screen.
const OFF_SCREEN_PX: f32 = -900.0;

/// The part of an inline style that decides whether text is seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Visibility {
    /// Nothing inside can be seen, whatever it says itself.
    pub(super) gone: bool,
    /// `visibility`, where it is set; inner elements may set it again.
    pub(super) concealed: Option<bool>,
    /// Whether the font is too small to read, where its size is set; inner elements may set it again.
    pub(super) unreadable: Option<bool>,
}

/// Reads an inline style.
pub(super) fn visibility(style: &str) -> Visibility {
    if style.contains('\\') || style.contains("/*") {
        return declarations(&plain(style));
    }
    declarations(style)
}

fn declarations(style: &str) -> Visibility {
    let mut seen = Visibility::default();
    let mut clipped = false;
    let mut flat = false;
    let mut outside = false;
    let mut positioned = false;
    let mut colour = "";
    let mut background = "";
    for declaration in style.split(';') {
        let Some((property, value)) = declaration.split_once(':') else {
            continue;
        };
        let property = property.trim();
        let value = value.trim();
        let value = value.split('!').next().unwrap_or(value).trim_end();
        if property.eq_ignore_ascii_case("display") {
            seen.gone |= value.eq_ignore_ascii_case("none");
        } else if property.eq_ignore_ascii_case("mso-hide") {
            seen.gone |= value.eq_ignore_ascii_case("all");
        } else if property.eq_ignore_ascii_case("opacity") {
            seen.gone |= number(value) == Some(0.0);
        } else if property.eq_ignore_ascii_case("visibility") {
            let hidden =
                value.eq_ignore_ascii_case("hidden") || value.eq_ignore_ascii_case("collapse");
            seen.concealed = Some(hidden);
        } else if property.eq_ignore_ascii_case("font-size") {
            seen.unreadable = font_size(value).or(seen.unreadable);
        } else if property.eq_ignore_ascii_case("font") {
            for word in value.split_whitespace() {
                let size = word.split('/').next().unwrap_or(word);
                let digits = size.starts_with(|first: char| first.is_ascii_digit() || first == '.');
                if digits && size.ends_with(|last: char| last.is_ascii_alphabetic() || last == '%')
                {
                    seen.unreadable = font_size(size);
                }
            }
        } else if property.eq_ignore_ascii_case("overflow") {
            clipped = value.eq_ignore_ascii_case("hidden");
        } else if property.eq_ignore_ascii_case("max-height")
            || property.eq_ignore_ascii_case("height")
            || property.eq_ignore_ascii_case("max-width")
            || property.eq_ignore_ascii_case("width")
        {
            flat |= number(value) == Some(0.0);
        } else if property.eq_ignore_ascii_case("text-indent") {
            seen.gone |= number(value).is_some_and(|shift| shift < OFF_SCREEN_PX);
        } else if property.eq_ignore_ascii_case("left") || property.eq_ignore_ascii_case("top") {
            outside |= number(value).is_some_and(|shift| shift < OFF_SCREEN_PX);
        } else if property.eq_ignore_ascii_case("position") {
            positioned =
                value.eq_ignore_ascii_case("absolute") || value.eq_ignore_ascii_case("fixed");
        } else if property.eq_ignore_ascii_case("color") {
            colour = value;
        } else if property.eq_ignore_ascii_case("background-color")
            || property.eq_ignore_ascii_case("background")
        {
            background = value;
        }
    }
    seen.gone |= (clipped && flat) || (positioned && outside);
    // Only what one element says about itself; the colours around it are not known here.
    seen.gone |= colour.eq_ignore_ascii_case("transparent");
    seen.gone |= !colour.is_empty() && colour.eq_ignore_ascii_case(background);
    seen
}

fn font_size(value: &str) -> Option<bool> {
    if let Some(size) = number(value) {
        let unit = value.trim_start_matches(|ch: char| ch.is_ascii_digit() || ch == '.');
        let relative = !(unit.is_empty()
            || unit.eq_ignore_ascii_case("px")
            || unit.eq_ignore_ascii_case("pt"));
        let limit = if relative { 0.05 } else { UNREADABLE_PX };
        return Some(size <= limit);
    }
    // Keywords such as `small` or `inherit`; the latter says nothing.
    if value.eq_ignore_ascii_case("inherit") {
        None
    } else {
        Some(false)
    }
}

/// The number a value begins with.
fn number(value: &str) -> Option<f32> {
    let end = value
        .find(|ch: char| !ch.is_ascii_digit() && !matches!(ch, '.' | '-' | '+'))
        .unwrap_or(value.len());
    value[..end].parse().ok()
}

/// A style without comments and escapes, the two ways to spell a property so that a naive reader misses it.
fn plain(style: &str) -> String {
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

    #[test]
    fn the_ways_to_hide_an_element_are_known() {
        for style in [
            "display:none",
            "color:red; DISPLAY : None !important",
            "dis\\70lay:none",
            "display/**/:no/* x */ne",
            "opacity:0",
            "opacity: 0.0",
            "mso-hide:all",
            "max-height:0px;overflow:hidden",
            "position:absolute;left:-9999px",
            "text-indent:-9999px",
            "color:#fff;background-color:#FFF",
            "color:transparent",
        ] {
            assert!(visibility(style).gone, "{style}");
        }
    }

    #[test]
    fn ordinary_styles_hide_nothing() {
        for style in [
            "display:block;opacity:1;color:#fff;background:#000",
            "max-height:0",
            "overflow:hidden;height:auto",
            "margin-left:-9999px;text-indent:-10px",
            "font:bold 12px/1 Arial",
            "",
        ] {
            let seen = visibility(style);
            assert!(!seen.gone && seen.unreadable != Some(true), "{style}");
        }
    }

    #[test]
    fn unreadable_fonts_and_visibility_can_be_set_again_inside() {
        assert_eq!(visibility("font-size:0").unreadable, Some(true));
        assert_eq!(visibility("font-size:1px").unreadable, Some(true));
        assert_eq!(visibility("font:0px/0 a").unreadable, Some(true));
        assert_eq!(visibility("font-size:0.9em").unreadable, Some(false));
        assert_eq!(visibility("font-size:14px").unreadable, Some(false));
        assert_eq!(visibility("font-size:inherit").unreadable, None);
        assert_eq!(visibility("visibility:hidden").concealed, Some(true));
        assert_eq!(visibility("visibility:visible").concealed, Some(false));
    }
}
