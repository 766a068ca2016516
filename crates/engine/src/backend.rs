//! Devices: the only place that names them.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::str::FromStr;
use std::sync::{Mutex, OnceLock, PoisonError};

use burn::tensor::{DType, Device, Tensor};
use omniburn_models::record::{Dtype, RecordHeader};
use omniburn_models::{Isa, KernelChoice};

use crate::error::{EngineError, panic_message};

/// The backends this project knows, compiled in or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BackendKind {
    /// Burn's CPU backend.
    #[default]
    Flex,
    /// Whatever graphics interface wgpu finds, with WGSL shaders.
    Wgpu,
    /// Vulkan with SPIR-V shaders; for real drivers only.
    Vulkan,
    /// Apple's Metal.
    Metal,
    /// WebGPU.
    WebGpu,
    /// NVIDIA's CUDA.
    Cuda,
}

impl BackendKind {
    /// Every backend with the name users type and whether this build has it.
    pub const ALL: [(BackendKind, &'static str, bool); 6] = [
        (BackendKind::Flex, "flex", cfg!(feature = "flex")),
        (BackendKind::Wgpu, "wgpu", cfg!(feature = "wgpu")),
        (BackendKind::Vulkan, "vulkan", cfg!(feature = "vulkan")),
        (BackendKind::Metal, "metal", cfg!(feature = "metal")),
        (BackendKind::WebGpu, "webgpu", cfg!(feature = "webgpu")),
        (BackendKind::Cuda, "cuda", cfg!(feature = "cuda")),
    ];

    /// The name users type.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, name, _)| name)
    }
}

/// A backend and which of its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct BackendSpec {
    /// The backend.
    pub kind: BackendKind,
    /// Which device of it; `None`: its own choice.
    pub index: Option<usize>,
}

impl FromStr for BackendSpec {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        let unknown = || EngineError::UnknownDevice { asked: text.into() };
        let (name, index) = match text.split_once(':') {
            Some((name, index)) => (name, Some(index.parse().map_err(|_| unknown())?)),
            None => (text, None),
        };
        let (kind, ..) = BackendKind::ALL.into_iter().find(|(_, n, _)| *n == name).ok_or_else(unknown)?;
        if kind == BackendKind::Flex && index.is_some_and(|i| i > 0) {
            return Err(unknown());
        }
        Ok(Self { kind, index })
    }
}

impl fmt::Display for BackendSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        self.index.map_or(Ok(()), |i| write!(f, ":{i}"))
    }
}

/// What a device can do, as far as planning needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The types it computes products in.
    pub dtypes: Vec<Dtype>,
    /// Whether products in bf16 are faster than in f32: on a CPU where the instructions that are used multiply such, on a GPU
    /// taken for granted where bf16 is among the types.
    pub fast_low_precision: bool,
}

impl BackendSpec {
    /// Starts the device, or finds it running: a runtime is set up once a process and shared by every engine. `tuning` is as
    /// in [`crate::EngineBuilder::tuning`], `isa` what a CPU computes with.
    ///
    /// # Errors
    /// [`EngineError::BackendMissing`] if this build has no such backend, [`EngineError::DeviceUnavailable`] if the
    /// machine has no such device.
    pub(crate) fn device(self, tuning: Option<&Path>, isa: Isa) -> Result<(Device, Capabilities), EngineError> {
        static STARTED: OnceLock<Mutex<HashMap<BackendSpec, Device>>> = OnceLock::new();
        let mut started = STARTED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        let device = match started.get(&self) {
            Some(device) => device.clone(),
            None => {
                if self.kind != BackendKind::Flex && !omniburn_models::keep_tuning(tuning) {
                    tracing::warn!(folder = ?tuning, "tuning is kept where this process first said, not here");
                }
                let device = self.start()?;
                started.insert(self, device.clone());
                device
            }
        };
        let of_device = |dtype: &Dtype| match dtype {
            Dtype::F32 => true,
            // By kernels of ours.
            Dtype::Int8 => self.kind == BackendKind::Flex,
            // Types of records alone.
            Dtype::Affine8 | Dtype::Affine4 => false,
            Dtype::Bf16 | Dtype::F16 => device.supports_dtype(dtype.burn()),
        };
        let dtypes = Dtype::COMPUTED.into_iter().filter(of_device).collect();
        let fast_low_precision = self.kind != BackendKind::Flex || multiplies_bf16(isa);
        let capabilities = Capabilities { dtypes, fast_low_precision };
        Ok((device, capabilities))
    }

    /// Starts the device, computes one sum on it, and says what it can do. `tuning` is as in
    /// [`crate::EngineBuilder::tuning`]: a program that goes on to an engine gives both the same folder.
    ///
    /// # Errors
    /// [`EngineError::BackendMissing`] if this build has no such backend, [`EngineError::DeviceUnavailable`] if the
    /// machine has no such device or it does not compute.
    pub fn probe(self, tuning: Option<&Path>) -> Result<Capabilities, EngineError> {
        let (device, capabilities) = self.device(tuning, Isa::current())?;
        let unavailable = |reason| EngineError::DeviceUnavailable { asked: self.to_string(), reason };
        // Missing drivers show as late as here, some as a panic.
        let sum = || Tensor::<1>::ones([3], (&device, DType::F32)).sum().try_into_data();
        let found = catch_unwind(AssertUnwindSafe(sum));
        let found = found.map_err(|panic| unavailable(panic_message(panic.as_ref())))?;
        let found = found.map_err(|e| unavailable(format!("{e:?}")))?;
        match found.try_to_vec::<f32>() {
            Ok(values) if values == [3.0] => Ok(capabilities),
            Ok(values) => Err(unavailable(format!("the sum of three ones was {values:?}"))),
            Err(e) => Err(unavailable(format!("{e:?}"))),
        }
    }

    fn start(self) -> Result<Device, EngineError> {
        match self.kind {
            #[cfg(feature = "flex")]
            BackendKind::Flex => Ok(Device::flex()),
            #[cfg(feature = "wgpu")]
            BackendKind::Wgpu => self.start_wgpu(burn::tensor::wgpu::WgpuBackend::Auto, Device::wgpu),
            #[cfg(feature = "vulkan")]
            BackendKind::Vulkan => self.start_wgpu(burn::tensor::wgpu::WgpuBackend::Vulkan, Device::vulkan),
            #[cfg(feature = "metal")]
            BackendKind::Metal => self.start_wgpu(burn::tensor::wgpu::WgpuBackend::Metal, Device::metal),
            #[cfg(feature = "webgpu")]
            BackendKind::WebGpu => self.start_wgpu(burn::tensor::wgpu::WgpuBackend::WebGpu, Device::webgpu),
            #[cfg(feature = "cuda")]
            BackendKind::Cuda => {
                // Burn offers no fallible constructor here: a missing driver panics at the first operation.
                let index = self.index.unwrap_or(0);
                std::panic::catch_unwind(|| Device::cuda(index))
                    .map_err(|_| self.unavailable("the CUDA driver was not found".into()))
            }
            #[allow(unreachable_patterns)] // with every backend compiled in, none is missing
            _ => Err(EngineError::BackendMissing {
                asked: self.kind.name().into(),
                compiled: BackendKind::ALL.iter().filter(|(.., yes)| *yes).map(|(_, name, _)| *name).collect(),
            }),
        }
    }

    #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "webgpu"))]
    fn start_wgpu(
        self,
        api: burn::tensor::wgpu::WgpuBackend,
        running: fn(burn::tensor::DeviceKind) -> Device,
    ) -> Result<Device, EngineError> {
        use burn::tensor::DeviceKind;
        let kind = self.index.map_or(DeviceKind::DefaultDevice, DeviceKind::DiscreteGpu);
        let options = || Device::wgpu_options().graphics_api(api).device_kind(kind.clone()).init();
        // Some drivers panic in place of failing.
        let reason = match catch_unwind(AssertUnwindSafe(options)) {
            Ok(Ok(device)) => return Ok(device),
            Ok(Err(e)) => e.to_string(),
            Err(panic) => panic_message(panic.as_ref()),
        };
        // A runtime that somebody else in this process has started cannot be set up again, only used: see if it works.
        let probe = || {
            let device = running(kind.clone());
            Tensor::<1>::zeros([1], &device).try_into_data().map(|_| device)
        };
        match catch_unwind(AssertUnwindSafe(probe)) {
            Ok(Ok(device)) => Ok(device),
            _ => Err(self.unavailable(reason)),
        }
    }

    #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "webgpu", feature = "cuda"))]
    fn unavailable(self, reason: String) -> EngineError {
        EngineError::DeviceUnavailable { asked: self.to_string(), reason }
    }
}

/// Whether a set of instructions multiplies bf16.
fn multiplies_bf16(isa: Isa) -> bool {
    isa >= Isa::Avx512Bf16
}

/// The type that products of a record are computed in on the CPU of this machine unless another is asked for, by an engine
/// that is given this choice of kernels.
pub fn default_dtype(header: &RecordHeader, kernels: Option<&KernelChoice>) -> Dtype {
    let isa = Isa::resolved(kernels.map(|choice| choice.isa));
    let here = Capabilities { dtypes: Dtype::COMPUTED.to_vec(), fast_low_precision: multiplies_bf16(isa) };
    let chosen = here.choose(None, header.dtype, "flex");
    chosen.expect("nothing was asked for that the device could lack")
}

impl Capabilities {
    /// The type to compute products in: the one asked for, or bf16 where that is fast and loses nothing of what a record's own
    /// type has left, or f32. Eight bits and a scale a row are as coarse as bf16: retrieval figures of the model that ships move by
    /// at most 0.33 points from f32 to bf16.
    ///
    /// f16 is never chosen unasked: activations of this family pass its range in places. Affine groups are multiplied as they
    /// are stored by kernels of the CPU alone: with rows of whole numbers unless f32 is asked for.
    pub(crate) fn choose(&self, asked: Option<Dtype>, stored: Dtype, device: &str) -> Result<Dtype, EngineError> {
        if stored.is_affine() {
            return match asked {
                // Kernels of ours, which no other device has.
                _ if !self.dtypes.contains(&Dtype::Int8) => {
                    Err(EngineError::DtypeUnsupported { device: device.into(), dtype: stored })
                }
                None => Ok(Dtype::Int8),
                Some(dtype @ (Dtype::Int8 | Dtype::F32)) => Ok(dtype),
                Some(dtype) => Err(EngineError::AffineComputed { asked: dtype, stored }),
            };
        }
        match asked {
            // Products in whole numbers need matrices that are stored so.
            Some(Dtype::Int8) if stored != Dtype::Int8 => {
                Err(EngineError::DtypeUnsupported { device: device.into(), dtype: Dtype::Int8 })
            }
            Some(dtype) if self.dtypes.contains(&dtype) => Ok(dtype),
            Some(dtype) => Err(EngineError::DtypeUnsupported { device: device.into(), dtype }),
            None if self.fast_low_precision && self.in_bf16(stored) => Ok(Dtype::Bf16),
            None => Ok(Dtype::F32),
        }
    }

    /// Whether a record's matrices may be computed with in bf16 unasked.
    fn in_bf16(&self, stored: Dtype) -> bool {
        // A device without kernels of ours for int8 matrices was measured in f32 alone.
        let measured = stored == Dtype::Bf16 || stored == Dtype::Int8 && self.dtypes.contains(&Dtype::Int8);
        measured && self.dtypes.contains(&Dtype::Bf16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_users_write_them() {
        assert_eq!("flex".parse::<BackendSpec>().unwrap(), BackendSpec::default());
        let second = "cuda:1".parse::<BackendSpec>().unwrap();
        assert_eq!((second.kind, second.index), (BackendKind::Cuda, Some(1)));
        assert_eq!(second.to_string(), "cuda:1");
        for wrong in ["", "cpu", "flex:1", "cuda:", "cuda:x", "CUDA"] {
            assert!(matches!(wrong.parse::<BackendSpec>(), Err(EngineError::UnknownDevice { .. })), "{wrong}");
        }
    }

    #[test]
    #[cfg(feature = "flex")]
    fn a_probe_says_what_a_device_can_do_or_what_is_missing() {
        let found = BackendSpec::default().probe(None).unwrap();
        assert!(found.dtypes.contains(&Dtype::F32));
        assert_eq!(found.fast_low_precision, multiplies_bf16(Isa::current()));
        for (kind, name, compiled) in BackendKind::ALL {
            let missing = BackendSpec { kind, index: None }.probe(None);
            assert!(compiled || matches!(missing, Err(EngineError::BackendMissing { .. })), "{name}");
        }
    }

    #[test]
    fn low_precision_is_chosen_unasked_only_where_it_is_fast() {
        let all = Dtype::FLOATS.to_vec();
        let slow = Capabilities { dtypes: all.clone(), fast_low_precision: false };
        let fast = Capabilities { dtypes: all, fast_low_precision: true };
        let narrow = Capabilities { dtypes: vec![Dtype::F32, Dtype::F16], fast_low_precision: true };
        assert_eq!(slow.choose(None, Dtype::Bf16, "x").unwrap(), Dtype::F32);
        assert_eq!(fast.choose(None, Dtype::Bf16, "x").unwrap(), Dtype::Bf16);
        assert_eq!(narrow.choose(None, Dtype::Bf16, "x").unwrap(), Dtype::F32);
        let cpu = Capabilities { dtypes: Dtype::COMPUTED.to_vec(), fast_low_precision: true };
        assert_eq!(fast.choose(None, Dtype::Int8, "x").unwrap(), Dtype::F32);
        assert_eq!(cpu.choose(None, Dtype::Int8, "x").unwrap(), Dtype::Bf16);
        assert_eq!(cpu.choose(None, Dtype::F16, "x").unwrap(), Dtype::F32);
        for stored in [Dtype::Affine8, Dtype::Affine4] {
            assert_eq!(cpu.choose(None, stored, "x").unwrap(), Dtype::Int8);
            assert_eq!(cpu.choose(Some(Dtype::F32), stored, "x").unwrap(), Dtype::F32);
            let refused = cpu.choose(Some(Dtype::Bf16), stored, "x").unwrap_err().to_string();
            assert!(refused.contains("bf16") && refused.contains(stored.name()), "{refused}");
            let refused = fast.choose(None, stored, "x").unwrap_err().to_string();
            assert!(refused.contains(stored.name()) && refused.contains("`x`"), "{refused}");
        }
        assert!(matches!(fast.choose(Some(Dtype::Int8), Dtype::Int8, "x"), Err(EngineError::DtypeUnsupported { .. })));
        assert!(matches!(
            narrow.choose(Some(Dtype::Bf16), Dtype::Bf16, "x"),
            Err(EngineError::DtypeUnsupported { .. })
        ));
    }
}
