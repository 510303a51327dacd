//! BMP, GIF and TIFF, which this crate decodes itself.

use std::collections::BTreeMap;

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
        (
            bmp([2, 2], 24, 4, &[], &[0; 16]),
            "BMP with a JPEG or PNG in it is not supported; convert it to PNG or JPEG",
        ),
        (
            bmp([2, 2], 7, 0, &[], &[0; 16]),
            "BMP with 7 bits and compression 0 is not supported",
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

/// A TIFF of 2x3 pixels in one strip; further tags replace those that it has.
fn tiff(big_endian: bool, tags: &[(u16, &[u32])], data: &[u8]) -> Vec<u8> {
    let number = |value: u32, bytes: usize| match big_endian {
        true => value.to_be_bytes()[4 - bytes..].to_vec(),
        false => value.to_le_bytes()[..bytes].to_vec(),
    };
    let length = [data.len() as u32];
    let mut all = BTreeMap::<u16, &[u32]>::from([
        (256, &[3][..]),
        (257, &[2]),
        (258, &[8]),
        (259, &[1]),
        (262, &[1]),
        (273, &[8]),
        (277, &[1]),
        (278, &[2]),
        (279, &length),
    ]);
    all.extend(tags.iter().copied());
    let directory = 8 + data.len() as u32;
    let mut tables = directory + 2 + 12 * all.len() as u32;
    let mut bytes = if big_endian {
        b"MM\0*".to_vec()
    } else {
        b"II*\0".to_vec()
    };
    bytes.extend(number(directory, 4));
    bytes.extend(data);
    bytes.extend(number(all.len() as u32, 2));
    let mut behind = Vec::new();
    for (tag, values) in all {
        bytes.extend(
            [
                number(tag.into(), 2),
                number(4, 2),
                number(values.len() as u32, 4),
            ]
            .concat(),
        );
        if let [value] = values {
            bytes.extend(number(*value, 4));
        } else {
            bytes.extend(number(tables, 4));
            values
                .iter()
                .for_each(|value| behind.extend(number(*value, 4)));
            tables += 4 * values.len() as u32;
        }
    }
    bytes.extend(behind);
    bytes
}

#[test]
fn tiff_of_every_layout_gives_its_colors() {
    let gray = [0, 50, 100, 150, 200, 255];
    let pack_bits = [1, 0, 50, 0xFF, 100, 0x80, 1, 150, 200]; // 0 50, 100 twice, nothing, 150 200
    for (name, bytes, expected) in [
        ("plain", tiff(false, &[], &gray), &gray[..]),
        ("big-endian", tiff(true, &[], &gray), &gray),
        (
            "0 is white",
            tiff(false, &[(262, &[0])], &gray.map(|level| 255 - level)),
            &gray,
        ),
        (
            "differences",
            tiff(true, &[(317, &[2])], &[0, 50, 50, 150, 50, 55]),
            &gray,
        ),
        (
            "16 bits",
            tiff(
                true,
                &[(258, &[16])],
                &[0, 0, 50, 50, 100, 100, 150, 150, 200, 200, 255, 255],
            ),
            &gray,
        ),
        (
            "strips of a row",
            tiff(
                false,
                &[(273, &[8, 11]), (278, &[1]), (279, &[3, 3])],
                &gray,
            ),
            &gray,
        ),
        (
            "tiles of 2x2",
            tiff(
                false,
                &[(322, &[2]), (323, &[2]), (324, &[8, 12]), (325, &[4, 4])],
                &[0, 50, 150, 200, 100, 9, 255, 9],
            ),
            &gray,
        ),
        (
            "4 bits",
            tiff(false, &[(258, &[4])], &[0x05, 0xA0, 0xF5, 0x00]),
            &[0, 85, 170, 255, 85, 0],
        ),
        (
            "runs",
            tiff(false, &[(259, &[32773])], &pack_bits),
            &[0, 50, 100, 100, 150, 200],
        ),
        (
            "alpha",
            tiff(
                false,
                &[(277, &[2]), (258, &[8, 8]), (338, &[2])],
                &[0, 255, 9, 0, 0, 255, 0, 255, 0, 255, 0, 255],
            ),
            &[0, 255, 0, 0, 0, 0],
        ),
    ] {
        let decoded = decode(&bytes, name, None).unwrap();
        assert_eq!((decoded.height(), decoded.width()), (2, 3), "{name}");
        assert_eq!(decoded.data(), expected, "{name}");
    }
    let colors = [65535, 0, 0, 0, 65535, 0, 0, 0, 65535];
    let palette = decode(
        &tiff(false, &[(262, &[3]), (320, &colors)], &[0, 1, 2, 2, 1, 0]),
        "palette",
        None,
    )
    .unwrap();
    assert_eq!(
        palette.data(),
        [RED, GREEN, BLUE, BLUE, GREEN, RED].as_flattened()
    );
    let turned = decode(&tiff(false, &[(274, &[6])], &gray), "turned", None).unwrap();
    assert_eq!(
        (turned.height(), turned.data()),
        (3, &[150, 0, 200, 50, 255, 100][..])
    );
    // Clear, 0, 50, both again, 0, 50 and the end: nine bits each, the highest first.
    let codes = [256_u32, 0, 50, 258, 0, 50, 257]
        .iter()
        .map(|code| format!("{code:09b}"));
    let bits = codes.collect::<String>() + "0";
    let packed: Vec<u8> = (0..8)
        .map(|i| u8::from_str_radix(&bits[8 * i..8 * i + 8], 2).unwrap())
        .collect();
    let lzw = decode(&tiff(false, &[(259, &[5])], &packed), "lzw", None).unwrap();
    assert_eq!(lzw.data(), [0, 50, 0, 50, 0, 50]);
}

#[test]
fn tiff_that_ends_early_lies_or_is_of_another_kind_is_refused() {
    for (tags, words) in [
        (
            &[(259, &[7][..])][..],
            "x.tif: TIFF with JPEG compression (7) is not supported; convert it to PNG or JPEG",
        ),
        (&[(262, &[5])], "TIFF with CMYK is not supported"),
        (
            &[(339, &[3])],
            "TIFF with signed numbers or floats is not supported",
        ),
        (
            &[(256, &[60_000]), (257, &[60_000])],
            "announces 60000x60000 px",
        ),
        (&[(256, &[0])], "it has 2x0 px"),
        (
            &[(273, &[1 << 31])],
            "a strip or tile lies beyond the end of the file",
        ),
        (&[(279, &[5])], "its data end before the picture does"),
        (&[(278, &[1])], "expected 2 strips or tiles, found 1"),
        (&[(262, &[3])], "it has no palette"),
    ] {
        let bytes = tiff(false, tags, &[0, 50, 100, 150, 200, 255]);
        let error = decode(&bytes, "x.tif", None).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    let whole = tiff(true, &[(259, &[5])], &[0x80, 0, 0, 0, 0, 0, 0, 0]);
    for at in 0..whole.len() {
        let _ = decode(&whole[..at], "cut", None);
        for byte in [0, 1, 2, 0x7F, 0x80, 0xFF] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            let _ = decode(&bytes, "damaged", None); // read or refused, without a panic
        }
    }
}
