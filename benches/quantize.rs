//! Quantizing a batch of KL-16 latents of 256-pixel images, against the argmin it replaces.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array4;
use tessera_quantize::{
    CalibrationBuilder, MomentsBuilder, Quantizer, QuantizerConfig, ScaleBy, Table,
};

#[path = "../quantize/tests/it/noise.rs"]
mod noise;
#[path = "../quantize/tests/it/reference.rs"]
mod reference;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SHAPE: (usize, usize, usize, usize) = (64, 16, 16, 16);

fn latents() -> Array4<f32> {
    noise::normal(0, SHAPE)
}

fn quantize(criterion: &mut Criterion) {
    let latents = latents();
    let mut group = criterion.benchmark_group("quantize/cpu/b64_c16_h16_w16");
    group.throughput(Throughput::Elements(latents.len() as u64));
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20);
    for bits in [4, 6, 8, 12] {
        let quantizer = Quantizer::new(QuantizerConfig {
            bits,
            ..QuantizerConfig::default()
        })
        .expect("valid settings");
        group.bench_function(format!("bits{bits}"), |bencher| {
            bencher.iter(|| quantizer.quantize(black_box(latents.view())))
        });
    }
    let table = Table::gaussian(6, 3.0).expect("valid settings");
    group.bench_function("bits6_naive_argmin", |bencher| {
        bencher.iter(|| black_box(&latents).mapv(|x| reference::argmin(table.values(), 0.6 * x)))
    });
    let quantizer = Quantizer::new(QuantizerConfig::default()).expect("valid settings");
    let indices = quantizer.quantize(latents.view()).expect("finite latents");
    group.bench_function("bits6_dequantize", |bencher| {
        bencher.iter(|| quantizer.dequantize(black_box(indices.view()), SHAPE.2, SHAPE.3))
    });
    group.finish();
}

fn calibrate(criterion: &mut Criterion) {
    let latents = latents();
    let mut group = criterion.benchmark_group("calibrate/cpu/b64_c16_h16_w16");
    group.throughput(Throughput::Elements(latents.len() as u64));
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20);
    let measure = || {
        let mut builder = MomentsBuilder::new();
        builder
            .add(black_box(latents.view()))
            .expect("finite latents");
        builder.finish().expect("latents that vary")
    };
    group.bench_function("moments", |bencher| bencher.iter(measure));
    let moments = measure();
    let quantizer =
        Quantizer::new(moments.quantizer_config(6, 5.0, ScaleBy::Channel)).expect("valid settings");
    group.bench_function("codes", |bencher| {
        bencher.iter(|| {
            let mut builder =
                CalibrationBuilder::new(&moments, &quantizer).expect("channels that fit");
            builder
                .add(black_box(latents.view()))
                .expect("finite latents");
            builder.finish()
        })
    });
    group.finish();
}

criterion_group!(benches, quantize, calibrate);
criterion_main!(benches);
