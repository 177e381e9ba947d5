//! An RGB image in memory: rectangles, text, and its PNG encoding.
//!
//! Drawing outside the image is clipped, never an error.

use std::io::{self, Write};

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

/// Red, green and blue.
pub(crate) type Colour = [u8; 3];

const WEIGHT: FontWeight = FontWeight::Regular;
const HEIGHT: RasterHeight = RasterHeight::Size16;

/// The height of a line of text.
pub(crate) const TEXT_HEIGHT_PX: usize = HEIGHT.val();

/// The width that `text` takes.
pub(crate) fn text_width_px(text: &str) -> usize {
    text.chars().count() * get_raster_width(WEIGHT, HEIGHT)
}

/// The image; rows from the top, pixels from the left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Canvas {
    width_px: usize,
    height_px: usize,
    rgb: Vec<u8>,
}

impl Canvas {
    /// An image of one colour.
    pub(crate) fn new(width_px: usize, height_px: usize, colour: Colour) -> Canvas {
        Canvas { width_px, height_px, rgb: colour.repeat(width_px * height_px) }
    }

    /// The width and the height.
    pub(crate) fn size_px(&self) -> (usize, usize) {
        (self.width_px, self.height_px)
    }

    /// The pixels, three bytes each.
    #[cfg(test)]
    pub(crate) fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// One pixel, if it is inside.
    fn pixel(&mut self, x: usize, y: usize) -> Option<&mut Colour> {
        if x >= self.width_px || y >= self.height_px {
            return None;
        }
        self.rgb[3 * (y * self.width_px + x)..].first_chunk_mut()
    }

    /// Colours one pixel.
    pub(crate) fn set(&mut self, x: usize, y: usize, colour: Colour) {
        if let Some(pixel) = self.pixel(x, y) {
            *pixel = colour;
        }
    }

    /// Fills a rectangle.
    pub(crate) fn fill(&mut self, x: usize, y: usize, width_px: usize, height_px: usize, colour: Colour) {
        for y in y..y + height_px {
            for x in x..x + width_px {
                self.set(x, y, colour);
            }
        }
    }

    /// Draws the frame just outside a rectangle that leaves room for it.
    pub(crate) fn frame(&mut self, x: usize, y: usize, width_px: usize, height_px: usize, colour: Colour) {
        self.fill(x - 1, y - 1, width_px + 2, 1, colour);
        self.fill(x - 1, y + height_px, width_px + 2, 1, colour);
        self.fill(x - 1, y, 1, height_px, colour);
        self.fill(x + width_px, y, 1, height_px, colour);
    }

    /// Writes text with its upper left corner at `(x, y)`; a character that the font lacks shows as `?`.
    pub(crate) fn text(&mut self, x: usize, y: usize, text: &str, colour: Colour) {
        let advance_px = get_raster_width(WEIGHT, HEIGHT);
        for (index, character) in text.chars().enumerate() {
            let glyph = get_raster(character, WEIGHT, HEIGHT).or_else(|| get_raster('?', WEIGHT, HEIGHT));
            let glyph = glyph.expect("the font has all of ASCII");
            for (row, coverage) in glyph.rows().enumerate() {
                for (column, &coverage) in coverage.iter().enumerate() {
                    if let Some(pixel) = self.pixel(x + index * advance_px + column, y + row) {
                        for (below, ink) in pixel.iter_mut().zip(colour) {
                            let mixed = u16::from(*below) * u16::from(255 - coverage)
                                + u16::from(ink) * u16::from(coverage);
                            *below = (mixed / 255) as u8;
                        }
                    }
                }
            }
        }
    }

    /// Encodes the image as PNG.
    pub(crate) fn write_png(&self, writer: impl Write) -> io::Result<()> {
        let edge = |length_px: usize| u32::try_from(length_px).map_err(io::Error::other);
        let mut encoder = png::Encoder::new(writer, edge(self.width_px)?, edge(self.height_px)?);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut encoder = encoder.write_header()?;
        encoder.write_image_data(&self.rgb)?;
        Ok(encoder.finish()?)
    }
}
