//! Owns a figure as pixels: its SVG drawn with a font of our own, so that every machine gives the same image.
//! Does not know what is in it.

use std::sync::Arc;

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

/// DejaVu Sans with Latin, Greek and Cyrillic letters and the signs of figures; `font/LICENSE` has its terms.
const GLYPHS: &[u8] = include_bytes!("font/DejaVuSans-subset.ttf");
/// Its family.
pub(super) const FONT: &str = "DejaVu Sans";
/// Pixels of the image for one of the figure, so that it is sharp in print and on dense screens.
const SCALE: f32 = 2.0;

/// Why a figure has no image.
#[derive(Debug, thiserror::Error)]
pub enum PngError {
    /// The SVG that was made is not read; it is a mistake of ours.
    #[error("the figure cannot be drawn")]
    Draw(#[source] resvg::usvg::Error),
    /// So many pixels do not fit into memory.
    #[error("an image of {width} × {height} pixels is too large")]
    TooLarge {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// The image cannot be written as PNG.
    #[error("the image cannot be written as PNG: {reason}")]
    Encode {
        /// What the encoder says.
        reason: String,
    },
}

/// Draws an SVG document.
pub(super) fn draw(svg: &str) -> Result<Vec<u8>, PngError> {
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(GLYPHS.to_vec());
    let options =
        Options { font_family: FONT.to_owned(), fontdb: Arc::new(fonts), ..Options::default() };
    let tree = Tree::from_str(svg, &options).map_err(PngError::Draw)?;
    let size = tree.size().to_int_size();
    let too_large = PngError::TooLarge { width: size.width(), height: size.height() };
    let size = size.scale_by(SCALE).ok_or(too_large)?;
    let (width, height) = (size.width(), size.height());
    let mut pixels = Pixmap::new(width, height).ok_or(PngError::TooLarge { width, height })?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().map_err(|error| PngError::Encode { reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::{Axis, Figure, Layer, Panel, Scale};

    fn figure() -> Figure {
        let axis = |label: &str, scale| Axis { label: label.to_owned(), scale };
        let points = vec![(1e18, 3.0), (1e19, 2.5), (1e20, 2.2)];
        let panel = Panel {
            title: "loss".to_owned(),
            x: axis("C, FLOPs", Scale::Log),
            y: axis("L, nats", Scale::Linear),
            height: 200.0,
            layers: vec![Layer::Marks { series: 0, points, is_filled: true }],
        };
        let (series, panels) = (vec!["δ, αβ".to_owned()], vec![panel]);
        Figure { title: "N_opt ∝ C^a".to_owned(), series, panels, ..Figure::default() }
    }

    /// Aim: letters and marks are there. Method: pixels in the colour of text above the panel, where only text is,
    /// and in that of the series inside; the same figure without its texts has none of the former.
    #[test]
    fn an_image_has_the_letters_and_the_marks_of_the_figure() {
        let count = |figure: &Figure, rows: std::ops::Range<u32>, is: fn(&[u8]) -> bool| {
            let pixels = Pixmap::decode_png(&figure.png().unwrap()).unwrap();
            assert_eq!(pixels.width(), 1720);
            let width = pixels.width() as usize * 4;
            let rows = &pixels.data()[rows.start as usize * width..rows.end as usize * width];
            rows.chunks_exact(4).filter(|pixel| is(pixel)).count()
        };
        let is_text: fn(&[u8]) -> bool = |pixel| pixel[0] < 80 && pixel[1] < 80 && pixel[2] < 80;
        let is_blue: fn(&[u8]) -> bool = |pixel| pixel[0] < 30 && pixel[2] > 150;
        let full = figure();
        let with_text = count(&full, 0..60, is_text);
        let bare = Figure { title: String::new(), ..full.clone() };
        assert!(with_text > 200, "{with_text}");
        assert_eq!(count(&bare, 0..60, is_text), 0);
        assert!(count(&full, 180..500, is_blue) > 300, "three filled marks");
    }

    /// Aim: no letter is drawn as the box of a missing one. Method: each is drawn alone, and beside it one that no
    /// font has.
    #[test]
    fn every_letter_of_a_figure_is_in_the_font() {
        let drawn =
            |title: &str| Figure { title: title.to_owned(), ..Figure::default() }.png().unwrap();
        let missing = drawn("\u{e000}");
        let letters = "0123456789⁰¹²³⁴⁵⁶⁷⁸⁹⁻−–·×∝≥≤Πδαβγ%(),.;:`^_ABCXYZabcxyzäéßжщ";
        let boxed: String =
            letters.chars().filter(|letter| drawn(&letter.to_string()) == missing).collect();
        assert_eq!(boxed, "");
        assert_eq!(drawn("漢"), missing, "a letter that the font does not have");
    }

    #[test]
    fn an_image_is_the_same_again() {
        assert_eq!(figure().png().unwrap(), figure().png().unwrap());
    }
}
