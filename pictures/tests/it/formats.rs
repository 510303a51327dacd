//! BMP and GIF, which this crate decodes itself.

use tessera_pictures::{Channels, decode};

/// A BMP of `bits` per pixel with a header of Windows.
fn bmp(size: [i32; 2], bits: u16, compression: u32, tables: &[u8], samples: &[u8]) -> Vec<u8> {
    let [height, width] = size;
    let data = 54 + tables.len() as u32;
    let mut bytes = b"BM\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend(data.to_le_bytes());
    bytes.extend(40_u32.to_le_bytes());
    bytes.extend(width.to_le_bytes());
    bytes.extend(height.to_le_bytes());
    bytes.extend([1, 0]);
    bytes.extend(bits.to_le_bytes());
    bytes.extend(compression.to_le_bytes());
    bytes.extend([0; 20]);
    bytes.extend(tables);
    bytes.extend(samples);
    bytes
}

/// Blue first, as BMP stores them: red, green, blue, white.
const PALETTE: [u8; 16] = [0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0, 255, 255, 255, 0];
const RED: [u8; 3] = [255, 0, 0];
const GREEN: [u8; 3] = [0, 255, 0];
const BLUE: [u8; 3] = [0, 0, 255];
const WHITE: [u8; 3] = [255; 3];

#[test]
fn bmp_of_every_depth_gives_its_colors() {
    let pixels = [RED, GREEN, BLUE, WHITE].concat(); // two rows of two
    let masks = |masks: [u32; 4]| masks.map(u32::to_le_bytes).concat();
    let rgb565 = masks([0xF800, 0x07E0, 0x001F, 0])[..12].to_vec();
    let rgba = masks([0xFF, 0xFF00, 0xFF_0000, 0xFF00_0000]);
    let indices = |row: [u8; 4]| row;
    for (name, bytes) in [
        (
            "4 bits",
            bmp([2, 2], 4, 0, &PALETTE, &[0x23, 0, 0, 0, 0x01, 0, 0, 0]),
        ),
        (
            "8 bits",
            bmp(
                [2, 2],
                8,
                0,
                &PALETTE,
                &[indices([2, 3, 0, 0]), indices([0, 1, 0, 0])].concat(),
            ),
        ),
        (
            "from the top",
            bmp(
                [-2, 2],
                8,
                0,
                &PALETTE,
                &[indices([0, 1, 0, 0]), indices([2, 3, 0, 0])].concat(),
            ),
        ),
        (
            "555",
            bmp(
                [2, 2],
                16,
                0,
                &[],
                &[0x1F, 0, 0xFF, 0x7F, 0, 0x7C, 0xE0, 0x03],
            ),
        ),
        (
            "565",
            bmp(
                [2, 2],
                16,
                3,
                &rgb565,
                &[0x1F, 0, 0xFF, 0xFF, 0, 0xF8, 0xE0, 0x07],
            ),
        ),
        (
            "24 bits",
            bmp(
                [2, 2],
                24,
                0,
                &[],
                &[255, 0, 0, 255, 255, 255, 0, 0, 0, 0, 255, 0, 255, 0, 0, 0],
            ),
        ),
        (
            "32 bits, whose fourth is no alpha",
            bmp(
                [2, 2],
                32,
                0,
                &[],
                &[255, 0, 0, 0, 255, 255, 255, 0, 0, 0, 255, 0, 0, 255, 0, 0],
            ),
        ),
        (
            "fields with alpha",
            bmp(
                [2, 2],
                32,
                6,
                &rgba,
                &[0, 0, 255, 255, 9, 9, 9, 0, 255, 0, 0, 255, 0, 255, 0, 255],
            ),
        ),
        (
            "runs: a run, an end of row, pixels as they are, the end",
            bmp(
                [2, 2],
                8,
                1,
                &PALETTE,
                &[1, 2, 1, 3, 0, 0, 1, 0, 1, 1, 0, 1],
            ),
        ),
        (
            "runs of 4 bits",
            bmp([2, 2], 4, 2, &PALETTE, &[2, 0x23, 0, 0, 2, 0x01, 0, 1]),
        ),
        (
            "runs: absolute",
            bmp([-1, 4], 8, 1, &PALETTE, &[0, 4, 0, 1, 2, 3, 0, 1]),
        ),
    ] {
        let decoded = decode(&bytes, name, None).unwrap();
        assert_eq!(decoded.data(), pixels, "{name}");
    }
    let gray = [0, 0, 0, 0, 255, 255, 255, 0];
    let bits = decode(
        &bmp([1, 9], 1, 0, &gray, &[0b0100_0001, 0x80, 0, 0]),
        "1 bit",
        None,
    )
    .unwrap();
    assert_eq!(
        (bits.channels(), bits.data()),
        (Channels::Gray, &[0, 255, 0, 0, 0, 0, 0, 255, 255][..])
    );
}

#[test]
fn bmp_that_ends_early_or_is_of_another_kind_says_so() {
    let whole = bmp([2, 2], 24, 0, &[], &[0; 16]);
    decode(&whole, "whole", None).unwrap();
    for length in 18..whole.len() - 2 {
        let error = decode(&whole[..length], "cut.bmp", None)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("cut.bmp: broken BMP: "),
            "{length}: {error}"
        );
    }
    for (bytes, words) in [
        (
            bmp([60_000, 60_000], 24, 0, &[], &[]),
            "announces 60000x60000 px",
        ),
        (bmp([2, -2], 24, 0, &[], &[0; 16]), "its width is negative"),
        (bmp([0, 2], 24, 0, &[], &[0; 16]), "it has 0x2 px"),
        (bmp([2, 2], 24, 4, &[], &[0; 16]), "wraps a JPEG or PNG"),
        (
            bmp([2, 2], 7, 0, &[], &[0; 16]),
            "7 bits with compression 0 are not supported",
        ),
        (
            bmp([2, 2], 8, 1, &PALETTE, &[9, 0]),
            "its data end before the picture does",
        ),
    ] {
        let error = decode(&bytes, "x.bmp", None).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

/// 4x3, made by Pillow: the palette red, green, blue, gray, of which blue is transparent.
const GIF: [u8; 61] = [
    71, 73, 70, 56, 57, 97, 4, 0, 3, 0, 129, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9, 33,
    249, 4, 1, 0, 0, 2, 0, 44, 0, 0, 0, 0, 4, 0, 3, 0, 0, 8, 14, 0, 1, 4, 16, 48, 96, 128, 128, 0,
    2, 7, 10, 8, 8, 0, 59,
];
/// 3x9, interlaced, made by Pillow: color `i` is `9 i, 255 − 9 i, i`, and the pixels are 0 to 26.
const INTERLACED: &str = "\
    4749463837610300090084000000ff0009f60112ed021be40324db042dd20536c9063fc00748b70851ae095aa50a639c0b6c\
    930c758a0d7e810e87780f906f10996611a25d12ab5413b44b14bd4215c63916cf3017d82718e11e19ea151a000000000000\
    0000000000000000002c000000000300090000082100010410308040010307102450b0804103070f204490308142050b1730\
    64d01010003b";

#[test]
fn gif_gives_its_first_frame_on_white() {
    let decoded = decode(&GIF, "a.gif", None).unwrap();
    let gray = [9; 3];
    let rows = [
        [RED, GREEN, WHITE, gray],
        [gray, WHITE, GREEN, RED],
        [GREEN, GREEN, WHITE, WHITE],
    ];
    assert_eq!(decoded.data(), rows.as_flattened().as_flattened());
    let byte = |at: usize| u8::from_str_radix(&INTERLACED[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..INTERLACED.len()).step_by(2).map(byte).collect();
    let decoded = decode(&bytes, "b.gif", None).unwrap();
    let pixels: Vec<u8> = (0..27).flat_map(|i| [9 * i, 255 - 9 * i, i]).collect();
    assert_eq!(decoded.data(), pixels);
}

#[test]
fn gif_that_ends_early_or_lies_is_refused() {
    for length in 6..GIF.len() - 6 {
        let error = decode(&GIF[..length], "cut.gif", None)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("cut.gif: broken GIF: "),
            "{length}: {error}"
        );
    }
    for at in 0..GIF.len() {
        for byte in 0..=u8::MAX {
            let mut bytes = GIF;
            bytes[at] = byte;
            let _ = decode(&bytes, "damaged", None); // read or refused, without a panic
        }
    }
}
