//! What quantization costs someone else's VAE: PSNR by bits, on your own photographs.
//!
//! `cargo run --release -p tessera --example reconstruct -- kl16.ckpt photos/*.jpg`; without arguments, the built-in
//! VAE on its own pictures.

use tessera::quantize::{MomentsBuilder, Quantizer, ScaleBy};
use tessera::{Device, ImgSize, Model, RateDistortion, Request, Result, Tokenizer, VaeOptions};

const BITS: [u8; 6] = [2, 3, 4, 5, 6, 8];

fn main() -> Result<()> {
    let device = Device::parse("auto")?;
    let mut arguments = std::env::args().skip(1);
    let (tokenizer, images) = match arguments.next() {
        Some(vae) => {
            // Every picture in the middle of a square of 256 px; `ImgSize::Full` would leave each its size.
            let options = VaeOptions {
                img_size: Some(ImgSize::Px(256)),
                ..VaeOptions::default()
            };
            let tokenizer = Tokenizer::of_vae(vae.as_ref(), &options, &device)?;
            let images = arguments
                .map(|photo| tokenizer.prepare(photo.as_ref()))
                .collect::<Result<Vec<_>>>()?;
            (tokenizer, images)
        }
        None => {
            let (model, tokenizer) = (
                Model::builtin(&device)?,
                Tokenizer::of_model(None, &device)?,
            );
            let pictures = model.generate(
                (0..10).map(|class| Request::new(class, 1)),
                &model.sampling(),
            );
            let images = pictures.map(|picture| tokenizer.prepare_pixels(&picture?.pixels));
            let images = images.collect::<Result<Vec<_>>>()?;
            (tokenizer, images)
        }
    };
    // Every channel is quantized in units of its own spread, measured here.
    let mut moments = MomentsBuilder::new();
    for image in &images {
        moments.add(tokenizer.encode(std::slice::from_ref(image))?.view())?;
    }
    let moments = moments.finish()?;
    let quantizers = BITS
        .map(|bits| moments.quantizer_config(bits, 5.0, ScaleBy::Channel))
        .map(Quantizer::new);
    let quantizers = quantizers.into_iter().collect::<Result<Vec<_>, _>>()?;

    let mut rows = Vec::new();
    for image in &images {
        for picture in tokenizer.reconstruct(std::slice::from_ref(image), &quantizers)? {
            rows.push(picture.measure("picture")?);
        }
    }
    if let Some(mean) = RateDistortion::mean(&rows) {
        println!("{} pictures through {}", rows.len(), tokenizer.name);
        println!("continuous  {:6.2} dB", mean.continuous.psnr);
        for (bits, quality) in BITS.iter().zip(&mean.quantized) {
            println!("{bits} bits      {:6.2} dB", quality.psnr);
        }
    }
    Ok(())
}
