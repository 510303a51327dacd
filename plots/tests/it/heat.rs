//! Sheets of heat maps, looked at where their cells are.

use tessera_pictures::{Canvas, Channels, Pixels};
use tessera_plots::color;
use tessera_plots::heat::{Row, sheet};

/// Px between the cells of a sheet, and the side of a cell.
const GAP: usize = 12;
const CELL: usize = 160;

/// The sheet of a black picture of 4 x 4 px with a map of its 2 x 2 tokens.
fn of_map(map: [f64; 4]) -> Pixels {
    let row = Row {
        picture: Pixels::new(4, 4, Channels::Gray, vec![0; 16]).unwrap(),
        caption: "Ålesund 1".into(),
        maps: vec![map.into()],
    };
    let titles = ["picture", "map"].map(String::from);
    sheet(&titles, &[row], "experts of a token").unwrap()
}

/// The color in the map's cell.
fn at(sheet: &Pixels, y: usize, x: usize) -> [u8; 3] {
    let (y, x) = (GAP + Canvas::LETTER_HEIGHT + 8 + y, 2 * GAP + CELL + x);
    std::array::from_fn(|i| sheet.data()[3 * (y * sheet.width() + x) + i])
}

#[test]
fn a_sheet_has_its_cells_and_the_hot_token_is_the_lightest() {
    let sheet = of_map([0.0, 1.0, 2.0, 3.0]);
    assert_eq!(sheet.width(), 3 * GAP + 2 * CELL);
    let sum = |y, x| at(&sheet, y, x).map(usize::from).iter().sum::<usize>();
    let corners = [sum(1, 1), sum(1, 150), sum(150, 1), sum(150, 150)];
    assert!(
        corners.is_sorted() && corners[0] < corners[3],
        "{corners:?}"
    );
}

#[test]
fn values_that_are_all_the_same_have_a_range() {
    let coldest = color(0.0).map(|heat| (0.62 * f64::from(heat)) as u8);
    assert_eq!(at(&of_map([2.0; 4]), 1, 1), coldest);
    sheet(&["picture".into()], &[], "of nothing").unwrap();
}
