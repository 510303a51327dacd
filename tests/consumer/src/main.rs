//! Draws a picture and quantizes an array with the crates alone.

use ndarray::Array4;
use tessera::{Device, Model, Request};
use tessera_quantize::{Quantizer, QuantizerConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::builtin(&Device::parse("flex")?)?;
    let class = model.class("t-shirt")?;
    for picture in model.generate([Request::new(class, 1)], &model.sampling().steps(4)) {
        let pixels = picture?.pixels;
        println!("drew a t-shirt of {} x {} px", pixels.width(), pixels.height());
    }

    let quantizer = Quantizer::new(QuantizerConfig::default())?;
    let latents = Array4::from_shape_fn((1, 16, 4, 4), |(_, channel, y, x)| {
        (channel as f32 - 8.0) / 4.0 + 0.1 * (y + x) as f32
    });
    let tokens = quantizer.quantize(latents.view())?; // [1, 16, 16]: 16 tokens of 16 dimensions
    let restored = quantizer.dequantize(tokens.view(), 4, 4)?;
    let largest = (&restored - &latents).iter().fold(0.0_f32, |most, error| most.max(error.abs()));
    println!("{} levels: quantized within {largest:.3}", quantizer.levels());
    Ok(())
}
