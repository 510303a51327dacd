//! Quantizes latents with `tessera-quantize` alone, and prints the error by bits.
//!
//! ```text
//! cargo run --release -p tessera-quantize --example quantize
//! ```

use ndarray::Array4;
use tessera_quantize::{CalibrationBuilder, MomentsBuilder, Quantizer, Result, ScaleBy};

const IMAGES: usize = 16;
const CHANNELS: usize = 4;
const SIDE: usize = 32;

fn main() -> Result<()> {
    let latents = latents(); // [16, 4, 32, 32]

    // The first pass measures the mean and the standard deviation of each channel.
    let mut moments = MomentsBuilder::new();
    moments.add(latents.view())?;
    let moments = moments.finish()?;
    println!(
        "means {:.2?}, standard deviations {:.2?}\n",
        moments.mean, moments.std
    );

    println!("bits  levels  RMS error  entropy in bits  clipped");
    for bits in 1..=10 {
        // Channels are normalized to unit variance and clipped to ± 5 standard deviations.
        let config = moments.quantizer_config(bits, 5.0, ScaleBy::Channel);
        let quantizer = Quantizer::new(config)?;

        // Every latent becomes one of 2^bits indices, and comes back as the value of its level.
        let indices = quantizer.quantize(latents.view())?; // [16, 1024, 4]
        let restored = quantizer.dequantize(indices.view(), SIDE, SIDE)?; // [16, 4, 32, 32]
        let squared = (&restored - &latents).mapv(|error| error * error);
        let rms = squared.mean().unwrap_or_default().sqrt();

        // The second pass measures the quantizer itself.
        let mut calibration = CalibrationBuilder::new(&moments, &quantizer)?;
        calibration.add(latents.view())?;
        let calibration = calibration.finish()?;

        let (levels, entropy) = (quantizer.levels(), calibration.entropy_bits);
        let clipped = 100.0 * calibration.clip_rate;
        println!("{bits:4}  {levels:6}  {rms:9.4}  {entropy:15.2}  {clipped:6.2}%");
    }
    Ok(())
}

/// Normally distributed latents whose channels differ in mean and spread, as those of an autoencoder do.
fn latents() -> Array4<f32> {
    let mut state = 1_u32;
    let mut uniform = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    };
    Array4::from_shape_fn([IMAGES, CHANNELS, SIDE, SIDE], |(_, channel, _, _)| {
        let normal = (0..12).map(|_| uniform()).sum::<f32>() - 6.0;
        let [mean, std] = [channel as f32 - 1.5, (channel + 1) as f32 / 2.0];
        mean + std * normal
    })
}
