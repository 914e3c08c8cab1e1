// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pictures in a terminal: as half blocks of text, as sixels, or by the protocols of kitty and iTerm2.

use std::fmt::Write;

use image::{
    ImageError, Rgb, RgbImage,
    imageops::{ColorMap, dither},
};

use crate::{
    picture::{Kind, Picture},
    terminal::Depth,
};

/// The most characters of one part of a picture, which kitty's protocol allows.
const KITTY_PART: usize = 4096;

/// The rows of pixels of a line of sixels.
const SIXEL_ROWS: usize = 6;

/// The picture in a size that fits `columns` and `rows` of square pixels, with its own shape. It is never enlarged.
pub(crate) fn fit(picture: &Picture, columns: usize, rows: usize) -> Picture {
    let (width, height) = (picture.width as usize, picture.height as usize);
    let scale = (columns as f64 / width as f64)
        .min(rows as f64 / height as f64)
        .min(1.0);
    let fitted = |length: usize| ((length as f64 * scale).round() as usize).max(1);
    let (to_width, to_height) = (fitted(width), fitted(height));
    let range = |index: usize, from: usize, to: usize| {
        let start = index * from / to;
        start..((index + 1) * from / to).max(start + 1)
    };
    let mut rgb = Vec::with_capacity(to_width * to_height * 3);
    for y in 0..to_height {
        for x in 0..to_width {
            // Each pixel is the mean of the pixels that it stands for.
            let (mut sums, mut count) = ([0_u32; 3], 0);
            for row in range(y, height, to_height) {
                for column in range(x, width, to_width) {
                    let start = (row * width + column) * 3;
                    for (sum, value) in sums.iter_mut().zip(&picture.rgb[start..start + 3]) {
                        *sum += u32::from(*value);
                    }
                    count += 1;
                }
            }
            rgb.extend(sums.map(|sum| (sum / count) as u8));
        }
    }
    Picture {
        width: to_width as u32,
        height: to_height as u32,
        rgb,
    }
}

/// The picture as lines of upper half blocks. A character has two pixels: its own colour above, the background below.
pub(crate) fn half_blocks(picture: &Picture, depth: Depth) -> Vec<String> {
    let width = picture.width as usize;
    let rows: Vec<&[u8]> = picture.rgb.chunks_exact(width * 3).collect();
    let mut lines = Vec::new();
    for pair in rows.chunks(2) {
        let mut line = String::new();
        let mut former = None;
        for column in 0..width {
            let pixel = |row: &[u8]| [row[column * 3], row[column * 3 + 1], row[column * 3 + 2]];
            let colours = (pixel(pair[0]), pair.get(1).map(|row| pixel(row)));
            // A colour that stays is not repeated, which makes the picture small for slow lines.
            if former != Some(colours) {
                line += &colour(38, colours.0, depth);
                line += &colours
                    .1
                    .map_or_else(|| "\x1b[49m".to_owned(), |below| colour(48, below, depth));
                former = Some(colours);
            }
            line.push('▀');
        }
        line += "\x1b[0m";
        lines.push(line);
    }
    lines
}

/// The sequence for a colour; `layer` is 38 for the character, and 48 for the background.
fn colour(layer: u8, [red, green, blue]: [u8; 3], depth: Depth) -> String {
    match depth {
        Depth::True => format!("\x1b[{layer};2;{red};{green};{blue}m"),
        Depth::Indexed => {
            // A cube of six steps for each of red, green and blue begins at 16.
            let step = |value: u8| u16::from(value) * 5 / 255 + u16::from(u16::from(value) * 5 % 255 > 127);
            format!("\x1b[{layer};5;{}m", 16 + 36 * step(red) + 6 * step(green) + step(blue))
        }
    }
}

/// The sequences that show the picture in `columns` and `rows` by the protocol of kitty.
pub(crate) fn kitty(picture: &Picture, columns: usize, rows: usize) -> Result<String, ImageError> {
    let encoded = base64(&picture.encode(Kind::Png)?);
    let parts: Vec<&str> = (0..encoded.len())
        .step_by(KITTY_PART)
        .map(|start| &encoded[start..(start + KITTY_PART).min(encoded.len())])
        .collect();
    let mut text = String::new();
    for (index, part) in parts.iter().enumerate() {
        let more = u8::from(index + 1 < parts.len());
        // The picture has a fixed number, so that each frame replaces the one before. The cursor stays.
        let options = if index == 0 {
            format!("a=T,f=100,i=1,q=2,C=1,c={columns},r={rows},m={more}")
        } else {
            format!("m={more}")
        };
        let _ = write!(text, "\x1b_G{options};{part}\x1b\\");
    }
    Ok(text)
}

/// The sequence that shows the picture in `columns` and `rows` by the protocol of iTerm2.
pub(crate) fn iterm(picture: &Picture, columns: usize, rows: usize) -> Result<String, ImageError> {
    let encoded = base64(&picture.encode(Kind::Jpg)?);
    Ok(format!(
        "\x1b]1337;File=inline=1;width={columns};height={rows};preserveAspectRatio=1:{encoded}\x07"
    ))
}

/// The colours of sixels: a cube of six steps for each of red, green and blue. Terminals have 256 or more colours.
#[derive(Clone, Copy, Debug)]
struct Cube;

impl Cube {
    const STEPS: usize = 6;
    const COUNT: usize = Self::STEPS.pow(3);

    /// The values of red, green and blue from 0 to 5.
    fn steps(color: Rgb<u8>) -> [usize; 3] {
        color
            .0
            .map(|value| (usize::from(value) * (Self::STEPS - 1) + 127) / 255)
    }
}

impl ColorMap for Cube {
    type Color = Rgb<u8>;

    fn index_of(&self, color: &Rgb<u8>) -> usize {
        Self::steps(*color)
            .iter()
            .fold(0, |index, step| index * Self::STEPS + step)
    }

    fn map_color(&self, color: &mut Rgb<u8>) {
        *color = Rgb(Self::steps(*color).map(|step| (step * 255 / (Self::STEPS - 1)) as u8));
    }
}

/// The sequence that shows the picture as sixels, a pixel of the terminal for each pixel.
pub(crate) fn sixel(picture: &Picture) -> String {
    let (width, height) = (picture.width as usize, picture.height as usize);
    let mut pixels = RgbImage::from_raw(picture.width, picture.height, picture.rgb.clone()).unwrap_or_default();
    dither(&mut pixels, &Cube);
    // Pixels that are not drawn stay as they are: those below the last row.
    let mut text = format!("\x1bP0;1;0q\"1;1;{width};{height}");
    for index in 0..Cube::COUNT {
        let percent = |step: usize| step % Cube::STEPS * 100 / (Cube::STEPS - 1);
        let (red, green, blue) = (percent(index / 36), percent(index / 6), percent(index));
        let _ = write!(text, "#{index};2;{red};{green};{blue}");
    }
    let rows: Vec<_> = pixels.rows().collect();
    for band in rows.chunks(SIXEL_ROWS) {
        // For each colour, the bits of its pixels in each column.
        let mut columns = vec![Vec::new(); Cube::COUNT];
        for (row, pixels) in band.iter().enumerate() {
            for (x, pixel) in pixels.clone().enumerate() {
                let bits: &mut Vec<u8> = &mut columns[Cube.index_of(pixel)];
                bits.resize(width, 0);
                bits[x] |= 1 << row;
            }
        }
        for (index, bits) in columns.iter().enumerate().filter(|(_, bits)| !bits.is_empty()) {
            let _ = write!(text, "#{index}");
            for run in bits.chunk_by(|one, other| one == other) {
                let character = char::from(b'?' + run[0]);
                match run.len() {
                    count @ 1..=3 => text.extend(std::iter::repeat_n(character, count)),
                    count => {
                        let _ = write!(text, "!{count}{character}");
                    }
                }
            }
            text.push('$');
        }
        text.push('-');
    }
    text + "\x1b\\"
}

/// The bytes in base64, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let value = group.iter().fold(0_u32, |value, byte| value << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for index in 0..4 {
            let digit = DIGITS[(value >> (18 - 6 * index) & 63) as usize];
            text.push(if index > group.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two columns: red above blue, and white above black.
    fn four() -> Picture {
        Picture {
            width: 2,
            height: 2,
            rgb: [[255, 0, 0], [255, 255, 255], [0, 0, 255], [0, 0, 0]].concat(),
        }
    }

    #[test]
    fn character_has_two_pixels() {
        let expected = "\x1b[38;2;255;0;0m\x1b[48;2;0;0;255m▀\x1b[38;2;255;255;255m\x1b[48;2;0;0;0m▀\x1b[0m";
        assert_eq!(half_blocks(&four(), Depth::True), [expected]);
        let expected = "\x1b[38;5;196m\x1b[48;5;21m▀\x1b[38;5;231m\x1b[48;5;16m▀\x1b[0m";
        assert_eq!(half_blocks(&four(), Depth::Indexed), [expected]);
    }

    #[test]
    fn picture_keeps_its_shape() {
        let picture = Picture {
            width: 160,
            height: 90,
            rgb: vec![9; 160 * 90 * 3],
        };
        for (columns, rows, size) in [
            (80, 100, (80, 45)),
            (80, 9, (16, 9)),
            (500, 500, (160, 90)),
            (1, 1, (1, 1)),
        ] {
            let fitted = fit(&picture, columns, rows);
            assert_eq!((fitted.width, fitted.height), size);
            assert_eq!(fitted.rgb, vec![9; size.0 as usize * size.1 as usize * 3]);
        }
        assert_eq!(fit(&four(), 1, 1).rgb, [127, 63, 127]);
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn kitty_gets_parts_of_limited_size() {
        let noise = Picture {
            width: 90,
            height: 60,
            rgb: (0..90 * 60 * 3_u32)
                .map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8)
                .collect(),
        };
        let text = kitty(&noise, 45, 15).unwrap();
        let parts: Vec<_> = text.split("\x1b\\").filter(|part| !part.is_empty()).collect();
        assert!(parts.len() > 2 && parts[0].starts_with("\x1b_Ga=T,f=100,i=1,q=2,C=1,c=45,r=15,m=1;iVBOR"));
        assert!(parts.iter().all(|part| part.len() <= KITTY_PART + 60));
        assert!(parts[1].starts_with("\x1b_Gm=1;") && parts[parts.len() - 1].starts_with("\x1b_Gm=0;"));
    }
}
