//! How an element looks to a reader: what it inherits, and whether its text can be seen at all.

use html5ever::interface::Attribute;
use html5ever::{LocalName, local_name};

use super::style::{Colour, Font, INLINE, PRESENTATION, Style, colour, number};
use super::tree::value;
use crate::HiddenKind;

/// Fonts up to this size, in pixels, are not meant to be read.
const TINY_PX: f32 = 1.0;
/// Size of a font that nobody set, in pixels.
const USUAL_PX: f32 = 16.0;
/// Images up to this size, in pixels, are counters and spacers.
const PIXEL_PX: f32 = 3.0;
/// Colours are the same to a reader if no part of them differs by more, of 255.
const SAME_PARTS: u8 = 10;
/// Colour of links that nobody set.
const LINK_COLOUR: Colour = Colour::Rgb(0, 0, 238);

/// What an element hands on to those in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Why nothing within can be seen, whatever it says itself.
    pub(super) gone: Option<HiddenKind>,
    invisible: bool,
    font_px: f32,
    colour: Colour,
    background: Colour,
    pub(super) preformatted: bool,
}

impl Look {
    /// Of a page that says nothing.
    pub(super) fn plain() -> Self {
        Self {
            gone: None,
            invisible: false,
            font_px: USUAL_PX,
            colour: Colour::Rgb(0, 0, 0),
            background: Colour::Rgb(255, 255, 255),
            preformatted: false,
        }
    }

    /// Of an element within, whose own style is `style`.
    pub(super) fn within(&self, style: &Style) -> Self {
        let mut look = *self;
        match style.font.value() {
            Some(Font::Pixels(size)) => look.font_px = size,
            Some(Font::Times(factor)) => look.font_px *= factor,
            None => {}
        }
        if let Some(invisible) = style.invisible.value() {
            look.invisible = invisible;
        }
        if let Some(colour) = style.colour.value() {
            look.colour = colour;
        }
        if let Some(background) = style.background.value()
            && background != Colour::Transparent
        {
            look.background = background;
        }
        if look.gone.is_none() {
            look.gone = if style.no_display.value() == Some(true) {
                Some(HiddenKind::DisplayNone)
            } else if style.faint.value() == Some(true) {
                Some(HiddenKind::Invisible)
            } else if style.is_clipped() {
                Some(HiddenKind::Clipped)
            } else if style.is_off_screen() {
                Some(HiddenKind::OffScreen)
            } else {
                None
            };
        }
        look
    }

    /// Why a text here is not seen, if it is not.
    pub(super) fn hides(&self) -> Option<HiddenKind> {
        if self.gone.is_some() {
            return self.gone;
        }
        if self.invisible {
            return Some(HiddenKind::Invisible);
        }
        if self.font_px <= TINY_PX {
            return Some(HiddenKind::TinyFont);
        }
        let same = match (self.colour, self.background) {
            (Colour::Transparent, _) => true,
            (Colour::Rgb(red, green, blue), Colour::Rgb(back_red, back_green, back_blue)) => {
                red.abs_diff(back_red) <= SAME_PARTS
                    && green.abs_diff(back_green) <= SAME_PARTS
                    && blue.abs_diff(back_blue) <= SAME_PARTS
            }
            _ => false,
        };
        same.then_some(HiddenKind::SameColour)
    }

    /// Whether an image here, of the style `style`, is not seen; its font and colour do not matter.
    pub(super) fn hides_image(&self, style: &Style) -> bool {
        let tiny = |said: Option<f32>| said.is_some_and(|size| size <= PIXEL_PX);
        self.gone.is_some()
            || self.invisible
            || tiny(style.width.value())
            || tiny(style.height.value())
    }
}

/// What the attributes of an element other than `style` say.
pub(super) fn presentation(name: &LocalName, attributes: &[Attribute], style: &mut Style) {
    for attribute in attributes {
        let value = &attribute.value;
        match attribute.name.local {
            local_name!("hidden") => style.no_display.say(true, PRESENTATION),
            local_name!("bgcolor") => {
                if let Some(background) = legacy_colour(value) {
                    style.background.say(background, PRESENTATION);
                }
            }
            local_name!("background") => style.background.say(Colour::Unknown, PRESENTATION),
            local_name!("color") if *name == local_name!("font") => {
                if let Some(colour) = legacy_colour(value) {
                    style.colour.say(colour, PRESENTATION);
                }
            }
            local_name!("text") if *name == local_name!("body") => {
                if let Some(colour) = legacy_colour(value) {
                    style.colour.say(colour, PRESENTATION);
                }
            }
            local_name!("size") if *name == local_name!("font") => {
                style.font.say(Font::Pixels(USUAL_PX), PRESENTATION);
            }
            local_name!("href") if *name == local_name!("a") => {
                style.colour.say(LINK_COLOUR, PRESENTATION);
            }
            local_name!("width") if *name == local_name!("img") => {
                if let Some(width) = pixels(value) {
                    style.width.say(width, PRESENTATION);
                }
            }
            local_name!("height") if *name == local_name!("img") => {
                if let Some(height) = pixels(value) {
                    style.height.say(height, PRESENTATION);
                }
            }
            _ => {}
        }
    }
}

/// Adds what the `style` attribute says.
pub(super) fn own_style(attributes: &[Attribute], style: &mut Style) {
    if let Some(raw) = value(attributes, &local_name!("style")) {
        style.read(raw, INLINE);
    }
}

fn pixels(raw: &str) -> Option<f32> {
    number(raw.trim()).filter(|_| !raw.contains('%'))
}

/// Colours of attributes may lack their `#`.
fn legacy_colour(raw: &str) -> Option<Colour> {
    let raw = raw.trim();
    colour(raw).or_else(|| colour(&format!("#{raw}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(styles: &[&str]) -> Option<HiddenKind> {
        let mut look = Look::plain();
        for raw in styles {
            let mut style = Style::default();
            style.read(raw, INLINE);
            look = look.within(&style);
        }
        look.hides()
    }

    #[test]
    fn what_is_inherited_decides() {
        for (styles, expected) in [
            (&["color:#333"][..], None),
            (&["color:#fff"], Some(HiddenKind::SameColour)),
            (
                &["background:#fff", "color:#fefefe"],
                Some(HiddenKind::SameColour),
            ),
            (&["background:#000", "color:#fff"], None),
            (
                &["background:#000", "color:#fff", "background:#fafafa"],
                Some(HiddenKind::SameColour),
            ),
            (&["background:url(a)", "color:#fff"], None),
            (&["background:#000"], Some(HiddenKind::SameColour)),
            (&["color:transparent"], Some(HiddenKind::SameColour)),
            (&["font-size:0", "font-size:14px"], None),
            (
                &["font-size:0", "font-size:2em"],
                Some(HiddenKind::TinyFont),
            ),
            (
                &["font-size:10px", "font-size:5%"],
                Some(HiddenKind::TinyFont),
            ),
            (&["visibility:hidden", "visibility:visible"], None),
            (
                &["visibility:hidden", "color:red"],
                Some(HiddenKind::Invisible),
            ),
            (
                &["display:none", "display:block"],
                Some(HiddenKind::DisplayNone),
            ),
            (&["opacity:0.01", "opacity:1"], Some(HiddenKind::Invisible)),
            (&["overflow:hidden;max-height:0"], Some(HiddenKind::Clipped)),
            (
                &["position:absolute;top:-5000px"],
                Some(HiddenKind::OffScreen),
            ),
        ] {
            assert_eq!(look(styles), expected, "{styles:?}");
        }
    }
}
