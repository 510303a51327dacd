//! The colors of charts and heat maps.

use plotters::style::RGBColor;

/// Viridis, the colors that are evenly spaced to the eye, at a place in 0..=1.
pub fn color(place: f64) -> [u8; 3] {
    const AT: [[f64; 3]; 9] = [
        [68.0, 1.0, 84.0],
        [71.0, 44.0, 122.0],
        [59.0, 81.0, 139.0],
        [44.0, 113.0, 142.0],
        [33.0, 144.0, 141.0],
        [39.0, 173.0, 129.0],
        [92.0, 200.0, 99.0],
        [170.0, 220.0, 50.0],
        [253.0, 231.0, 37.0],
    ];
    let place = place.clamp(0.0, 1.0) * (AT.len() - 1) as f64;
    let below = (place as usize).min(AT.len() - 2);
    let share = place - below as f64;
    std::array::from_fn(|i| (AT[below][i] * (1.0 - share) + AT[below + 1][i] * share).round() as u8)
}

pub(crate) fn rgb([red, green, blue]: [u8; 3]) -> RGBColor {
    RGBColor(red, green, blue)
}
