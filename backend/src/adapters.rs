//! The GPUs and software renderers that wgpu finds on this machine, and the limits of an open device.

use burn::tensor::{Device, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::wgpu::wgpu;
use burn_cubecl::tensor::CubeTensor;
use std::sync::OnceLock;

/// A GPU as one graphics API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapter {
    /// Its own name.
    pub name: String,
    /// The graphics API.
    pub api: String,
    /// The driver and its version.
    pub driver: String,
    /// Whether it is a GPU and not a software renderer.
    pub gpu: bool,
    /// Maximum size of one tensor, in bytes.
    pub largest_buffer: u64,
}

/// All adapters, enumerated once.
pub fn adapters() -> &'static [Adapter] {
    static FOUND: OnceLock<Vec<Adapter>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let found = instance.enumerate_adapters(wgpu::Backends::all());
        let found = burn_cubecl::cubecl::future::block_on(found);
        found.iter().map(described).collect()
    })
}

fn described(adapter: &wgpu::Adapter) -> Adapter {
    let (info, limits) = (adapter.get_info(), adapter.limits());
    Adapter {
        gpu: info.device_type != wgpu::DeviceType::Cpu,
        name: info.name,
        api: info.backend.to_str().to_owned(),
        driver: format!("{} {}", info.driver, info.driver_info)
            .trim()
            .to_owned(),
        largest_buffer: limits
            .max_buffer_size
            .min(limits.max_storage_buffer_binding_size),
    }
}

/// The limits of a kernel on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of threads that share memory.
    pub units_per_cube: u32,
    /// Size of the memory they share, in bytes.
    pub shared_memory: usize,
    /// Minimum and maximum number of threads that run in lockstep.
    pub plane: [u32; 2],
    /// Maximum size of one tensor, in bytes.
    pub largest_tensor: u64,
}

/// The limits of a device, which is opened; `None` if it runs no such kernels.
pub fn limits(device: &Device) -> Option<Limits> {
    let tensor = Tensor::<1>::zeros([1], device);
    let client = cube_tensor(tensor)?.client;
    let (hardware, memory) = (&client.properties().hardware, &client.properties().memory);
    Some(Limits {
        units_per_cube: hardware.max_units_per_cube,
        shared_memory: hardware.max_shared_memory_size,
        plane: [hardware.plane_size_min, hardware.plane_size_max],
        largest_tensor: memory.max_page_size,
    })
}

#[cfg(not(feature = "fusion"))]
fn cube_tensor(tensor: Tensor<1>) -> Option<CubeTensor> {
    tensor.try_into_primitive::<CubeBackend>().ok()
}

#[cfg(feature = "fusion")]
fn cube_tensor(tensor: Tensor<1>) -> Option<CubeTensor> {
    let fused = tensor.try_into_primitive::<burn_cubecl::Cube>().ok()?;
    Some(
        fused
            .client
            .clone()
            .resolve_tensor_float::<CubeBackend>(fused),
    )
}
