//! A plane of numbers as a picture that can be read: a perceptual colour map, a scale with numbers, axes, a caption.
//!
//! Cells keep their aspect ratio. A small plane is enlarged by linear interpolation between cell centres, a large one
//! is shrunk by averaging, so that nothing is lost between pixels.

use std::io::{self, Write};

use colorous::INFERNO;
use ndarray::{Array2, ArrayView2, Axis};

use crate::canvas::{Canvas, Colour, TEXT_HEIGHT_PX, text_width_px};

/// The longer side of the plotted plane.
pub const PLOT_PX: usize = 640;

const SHORTEST_PLOT_PX: usize = 48;
const SHORTEST_SCALE_PX: usize = 160;
const SCALE_WIDTH_PX: usize = 24;
const MARGIN_PX: usize = 20;
const GAP_PX: usize = 8;
const TICK_PX: usize = 5;

const PAPER: Colour = [255, 255, 255];
const INK: Colour = [40, 40, 40];
const NOT_FINITE: Colour = [150, 150, 150];

/// A finished picture.
///
/// ```
/// use chare_examples::picture::Picture;
///
/// let plane = ndarray::Array2::from_shape_fn((24, 41), |(j, k)| (j * k) as f64);
/// let picture = Picture::heat_map(plane.view(), ["y", "z"], "a saddle");
/// let mut png = Vec::new();
/// picture.write_png(&mut png)?;
/// assert!(png.starts_with(b"\x89PNG"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    canvas: Canvas,
}

impl Picture {
    /// Draws a plane: the first index downwards, the second to the right. Values that are not finite show grey.
    ///
    /// # Panics
    /// If the plane is empty.
    pub fn heat_map(plane: ArrayView2<'_, f64>, axes: [&str; 2], caption: &str) -> Picture {
        assert!(!plane.is_empty(), "a picture shows at least one cell");
        let (rows, columns) = plane.dim();
        let plot_px = |cells: usize| {
            let scaled_px = (cells * PLOT_PX).div_ceil(rows.max(columns));
            scaled_px.max(SHORTEST_PLOT_PX)
        };
        let (width_px, height_px) = (plot_px(columns), plot_px(rows));
        let range = Range::of(plane);
        let ticks = [range.high, range.middle(), range.low].map(number);
        let last = [rows - 1, columns - 1].map(|index| index.to_string());

        let left_px = MARGIN_PX + text_width_px(&last[0]).max(text_width_px(axes[0])) + GAP_PX;
        let top_px = MARGIN_PX + TEXT_HEIGHT_PX + GAP_PX;
        let scale_height_px = height_px.max(SHORTEST_SCALE_PX);
        let scale_left_px = left_px + width_px + 3 * GAP_PX;
        let ticks_left_px = scale_left_px + SCALE_WIDTH_PX + TICK_PX + GAP_PX / 2;
        let widest_tick_px = ticks.iter().map(|tick| text_width_px(tick)).max().unwrap_or(0);
        let right_px = (ticks_left_px + widest_tick_px).max(MARGIN_PX + text_width_px(caption));
        let bottom_px = top_px + scale_height_px + GAP_PX + TEXT_HEIGHT_PX;

        let mut canvas = Canvas::new(right_px + MARGIN_PX, bottom_px + MARGIN_PX, PAPER);
        canvas.text(MARGIN_PX, MARGIN_PX - GAP_PX / 2, caption, INK);

        for ((y, x), &value) in resample(plane, height_px, width_px).indexed_iter() {
            canvas.set(left_px + x, top_px + y, range.colour(value));
        }
        canvas.frame(left_px, top_px, width_px, height_px, INK);
        draw_axes(&mut canvas, [left_px, top_px], [width_px, height_px], axes, &last);

        for y in 0..scale_height_px {
            let share = 1.0 - (y as f64 + 0.5) / scale_height_px as f64;
            canvas.fill(scale_left_px, top_px + y, SCALE_WIDTH_PX, 1, map(share));
        }
        canvas.frame(scale_left_px, top_px, SCALE_WIDTH_PX, scale_height_px, INK);
        for (index, tick) in ticks.iter().enumerate() {
            let y = top_px + index * (scale_height_px - 1) / 2;
            canvas.fill(scale_left_px + SCALE_WIDTH_PX, y, TICK_PX, 1, INK);
            canvas.text(ticks_left_px, y - TEXT_HEIGHT_PX / 2, tick, INK);
        }
        Picture { canvas }
    }

    /// The width and the height.
    pub fn size_px(&self) -> (usize, usize) {
        self.canvas.size_px()
    }

    /// Encodes the picture as PNG.
    ///
    /// # Errors
    /// If `writer` fails.
    pub fn write_png(&self, writer: impl Write) -> io::Result<()> {
        self.canvas.write_png(writer)
    }
}

/// Names the axes, and their first and last index.
fn draw_axes(canvas: &mut Canvas, corner: [usize; 2], size: [usize; 2], axes: [&str; 2], last: &[String; 2]) {
    let ([left_px, top_px], [width_px, height_px]) = (corner, size);
    let below_px = top_px + height_px + GAP_PX / 2;
    canvas.text(left_px, below_px, "0", INK);
    canvas.text(left_px + (width_px - text_width_px(axes[1])) / 2, below_px, axes[1], INK);
    canvas.text(left_px + width_px - text_width_px(&last[1]), below_px, &last[1], INK);

    let mut beside = |y: usize, text: &str| {
        canvas.text(left_px - GAP_PX / 2 - 2 - text_width_px(text), y, text, INK);
    };
    beside(top_px, "0");
    beside(top_px + (height_px - TEXT_HEIGHT_PX) / 2, axes[0]);
    beside(top_px + height_px - TEXT_HEIGHT_PX, &last[0]);
}

/// The finite values of a plane, and their colours.
struct Range {
    low: f64,
    high: f64,
}

impl Range {
    fn of(plane: ArrayView2<'_, f64>) -> Range {
        let finite = plane.iter().copied().filter(|value| value.is_finite());
        let (low, high) = finite
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low <= high { Range { low, high } } else { Range { low: f64::NAN, high: f64::NAN } }
    }

    fn middle(&self) -> f64 {
        self.low / 2.0 + self.high / 2.0
    }

    fn colour(&self, value: f64) -> Colour {
        if !value.is_finite() {
            return NOT_FINITE;
        }
        // Halved, so that the width of the range cannot overflow; a plane of one value has the colour of the low end.
        let width = self.high / 2.0 - self.low / 2.0;
        map(if width > 0.0 { (value / 2.0 - self.low / 2.0) / width } else { 0.0 })
    }
}

fn map(share: f64) -> Colour {
    INFERNO.eval_continuous(share.clamp(0.0, 1.0)).as_array()
}

/// The plane in another resolution, one axis after the other.
fn resample(plane: ArrayView2<'_, f64>, rows: usize, columns: usize) -> Array2<f64> {
    let along = |plane: ArrayView2<'_, f64>, axis: Axis, count: usize| {
        let taps: Vec<_> = (0..count).map(|index| taps(plane.len_of(axis), count, index)).collect();
        let mut shape = plane.raw_dim();
        shape[axis.index()] = count;
        let mut resampled = Array2::zeros(shape);
        for (mut lane, taps) in resampled.axis_iter_mut(axis).zip(&taps) {
            for &(index, weight) in taps {
                lane.scaled_add(weight, &plane.index_axis(axis, index));
            }
        }
        resampled
    };
    along(along(plane, Axis(0), rows).view(), Axis(1), columns)
}

/// Which of `from` cells, with what weights, make up sample `index` of `to`.
fn taps(from: usize, to: usize, index: usize) -> Vec<(usize, f64)> {
    let ratio = from as f64 / to as f64;
    if to >= from {
        let centre = ((index as f64 + 0.5) * ratio - 0.5).clamp(0.0, (from - 1) as f64);
        let (first, share) = (centre.floor() as usize, centre.fract());
        let both = [(first, 1.0 - share), (first + 1, share)];
        return both.into_iter().filter(|&(_, weight)| weight > 0.0).collect();
    }
    let (start, end) = (index as f64 * ratio, (index + 1) as f64 * ratio);
    let covered = |cell: usize| (end.min((cell + 1) as f64) - start.max(cell as f64)) / ratio;
    (start.floor() as usize..from.min(end.ceil() as usize)).map(|cell| (cell, covered(cell))).collect()
}

/// A number with four significant digits, without zeros at its end.
fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let scientific = format!("{value:.3e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let shorten = |digits: &str| {
        let trimmed =
            if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
        trimmed.to_owned()
    };
    match exponent.parse::<i32>() {
        Ok(exponent @ -3..=4) => shorten(&format!("{value:.*}", (3 - exponent).max(0) as usize)),
        _ => format!("{}e{exponent}", shorten(digits)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn decoded(picture: &Picture) -> (u32, u32, Vec<u8>) {
        let mut png = Vec::new();
        picture.write_png(&mut png).expect("memory takes everything");
        let mut reader = png::Decoder::new(Cursor::new(png)).read_info().expect("a PNG");
        let mut rgb = vec![0; reader.output_buffer_size().expect("it fits in memory")];
        let frame = reader.next_frame(&mut rgb).expect("one frame");
        (frame.width, frame.height, rgb)
    }

    #[test]
    fn the_png_holds_the_picture() {
        let plane = Array2::from_shape_fn((24, 41), |(j, k)| (j * k) as f64);
        let picture = Picture::heat_map(plane.view(), ["y", "z"], "caption");
        let (width, height, rgb) = decoded(&picture);
        assert_eq!((width as usize, height as usize), picture.size_px());
        assert_eq!(rgb, picture.canvas.rgb());
        assert!(width as usize > PLOT_PX, "{width} x {height}");
        for share in [0.0, 1.0] {
            let colour = map(share);
            let found = rgb.chunks_exact(3).filter(|pixel| *pixel == colour).count();
            assert!(found > 20, "the end of the scale at {share} is shown {found} times");
        }
    }

    #[test]
    fn any_shape_and_any_values_can_be_drawn() {
        let shapes = [(1, 1), (1, 900), (900, 1), (3, 1000), (700, 1500)];
        for shape in shapes {
            let plane = Array2::from_shape_fn(shape, |(j, k)| (j + k) as f64);
            let (width_px, height_px) = Picture::heat_map(plane.view(), ["y", "z"], "").size_px();
            assert!((PLOT_PX..1200).contains(&width_px.max(height_px)), "{width_px} x {height_px}");
        }
        for values in [[f64::NAN; 4], [f64::MAX, f64::MIN, 0.0, f64::INFINITY], [7.5; 4]] {
            let plane = Array2::from_shape_vec((2, 2), values.to_vec()).expect("four values");
            Picture::heat_map(plane.view(), ["y", "z"], "x".repeat(200).as_str());
        }
    }

    #[test]
    fn colours_follow_the_values() {
        let range = Range { low: f64::MIN, high: f64::MAX };
        assert_eq!(range.colour(f64::MIN), map(0.0));
        assert_eq!(range.colour(0.0), map(0.5));
        assert_eq!(range.colour(f64::MAX), map(1.0));
        assert_eq!(range.colour(f64::NAN), NOT_FINITE);
        assert_eq!(Range { low: 7.5, high: 7.5 }.colour(7.5), map(0.0));
    }

    #[test]
    fn weights_sum_to_one_and_keep_a_ramp() {
        for (from, to) in [(1, 5), (3, 640), (41, 640), (640, 640), (700, 640), (4000, 640), (7, 2)] {
            let ramp = |position: f64| 2.0 * position + 1.0;
            for index in 0..to {
                let taps = taps(from, to, index);
                assert!(
                    taps.iter().all(|&(cell, weight)| cell < from && weight > 0.0 && weight <= 1.0 + 1e-12)
                );
                let sum: f64 = taps.iter().map(|tap| tap.1).sum();
                assert!((sum - 1.0).abs() < 1e-9, "{from} to {to}, sample {index}: {sum}");
                let position =
                    ((index as f64 + 0.5) * from as f64 / to as f64 - 0.5).clamp(0.0, (from - 1) as f64);
                let value: f64 = taps.iter().map(|&(cell, weight)| weight * ramp(cell as f64)).sum();
                // Averaging cell values over a pixel is exact up to the steps inside its first and last cell.
                let slack = if to >= from { 1e-9 } else { 0.5 };
                assert!((value - ramp(position)).abs() <= slack, "{from} to {to}, sample {index}");
            }
        }
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (100.0, "100"),
            (50.0, "50"),
            (1.0 / 3.0, "0.3333"),
            (-2.5, "-2.5"),
            (12345.678, "12346"),
            (0.00123456, "0.001235"),
            (1.23456e-9, "1.235e-9"),
            (1e300, "1e300"),
            (99999.9, "1e5"),
        ];
        for (value, expected) in cases {
            assert_eq!(number(value), expected);
        }
        assert_eq!(number(f64::NAN), "NaN");
    }
}
