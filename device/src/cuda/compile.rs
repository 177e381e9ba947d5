//! CUDA C to code for one device, by NVRTC where it is there, and through the cache on disk.

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::PathBuf;
use std::sync::OnceLock;

use cudarc::nvrtc::{result, sys};

use super::cache;
use super::error::CudaError;
use super::shipped;

/// What CUDA C is compiled to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageKind {
    /// Code for exactly one compute capability: nothing is left for the driver to do.
    Cubin,
    /// Text that the driver compiles when it is loaded.
    Ptx,
}

/// Compiled code, complete and ended by a zero byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    bytes: Vec<u8>,
}

impl Image {
    /// Takes code that was compiled elsewhere: PTX or a cubin.
    ///
    /// # Safety
    ///
    /// The code is complete: the driver reads as much as the code itself says. It is run by the GPU as it is.
    pub unsafe fn from_bytes(bytes: &[u8]) -> Image {
        Image::new(bytes.to_vec())
    }

    fn new(mut bytes: Vec<u8>) -> Image {
        // Where a text ends; a cubin says so itself.
        bytes.push(0);
        Image { bytes }
    }

    /// Whether it is for one compute capability.
    pub(super) fn is_cubin(&self) -> bool {
        self.bytes.starts_with(b"\x7fELF")
    }

    /// The code alone.
    pub(super) fn code(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - 1]
    }

    /// The code, with the zero byte at its end.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// NVRTC, if it is there, and the folder of what it has compiled.
pub struct Compiler {
    folder: Option<PathBuf>,
    shipped: Option<PathBuf>,
    kind: ImageKind,
    version: OnceLock<Option<(c_int, c_int)>>,
}

impl Compiler {
    /// A compiler that keeps what it compiles in `folder`.
    pub fn new(folder: Option<PathBuf>, kind: ImageKind) -> Compiler {
        Compiler { folder, shipped: None, kind, version: OnceLock::new() }
    }

    /// The same, that takes what was compiled elsewhere from this folder, if it is there.
    pub fn with_shipped(self, shipped: Option<PathBuf>) -> Compiler {
        Compiler { shipped, ..self }
    }

    /// The version of NVRTC; `None` if there is none.
    pub fn version(&self) -> Option<(i32, i32)> {
        *self.version.get_or_init(|| {
            // SAFETY: loads the library of NVRTC, if there is one.
            if !unsafe { sys::is_culib_present() } {
                return None;
            }
            let (mut major, mut minor) = (0, 0);
            // SAFETY: both are written.
            let answer = unsafe { sys::nvrtcVersion(&mut major, &mut minor) };
            (answer == sys::nvrtcResult::NVRTC_SUCCESS).then_some((major, minor))
        })
    }

    /// Compiles the source of `kernel` for a compute capability.
    ///
    /// # Errors
    ///
    /// [`CudaError::NoCompiler`], or [`CudaError::Compile`] with what NVRTC wrote.
    pub fn compile(
        &self,
        kernel: &'static str,
        source: &str,
        options: &[&str],
        capability: (u32, u32),
    ) -> Result<Image, CudaError> {
        let shipped = self.shipped.as_ref();
        if let Some(code) = shipped.and_then(|folder| shipped::find(folder, source, options, capability)) {
            return Ok(Image::new(code));
        }
        let (major, minor) = self.version().ok_or(CudaError::NoCompiler { kernel })?;
        let (target, kind) = target(capability, self.kind);
        let key = format!("NVRTC {major}.{minor}\n{target}\n{}\n\n{source}", options.join("\n"));
        // What other files say is not in the key.
        let folder = self.folder.as_ref().filter(|_| !reads_files(source, options));
        if let Some(code) = folder.and_then(|folder| cache::load(folder, &key)) {
            return Ok(Image::new(code));
        }
        let code = Program::compile(kernel, source, options, &target)?.code(kind);
        let code = code.map_err(|log| CudaError::Compile { kernel, target, log })?;
        if let Some(folder) = folder {
            cache::store(folder, &key, &code);
        }
        Ok(Image::new(code))
    }
}

/// Whether other files are a part of what is compiled.
fn reads_files(source: &str, options: &[&str]) -> bool {
    let is_include = |line: &str| {
        let directive = line.trim_start().strip_prefix('#');
        directive.is_some_and(|directive| directive.trim_start().starts_with("include"))
    };
    let names_file = |option: &&str| option.starts_with("--pre-include") || option.starts_with("-include");
    source.lines().any(is_include) || options.iter().any(names_file)
}

/// What to compile for: the capability itself, or, if this NVRTC is older than the device, PTX for the newest that it knows,
/// which the driver compiles on.
fn target((major, minor): (u32, u32), kind: ImageKind) -> (String, ImageKind) {
    let wanted = (10 * major + minor) as c_int;
    let newest = newest_architecture().unwrap_or(wanted);
    match kind {
        ImageKind::Cubin if wanted <= newest => (format!("sm_{wanted}"), ImageKind::Cubin),
        _ => (format!("compute_{}", wanted.min(newest)), ImageKind::Ptx),
    }
}

fn newest_architecture() -> Option<c_int> {
    let mut count = 0;
    // SAFETY: the count is written.
    let counted = unsafe { sys::nvrtcGetNumSupportedArchs(&mut count) };
    let mut architectures = vec![0; usize::try_from(count).ok()?];
    // SAFETY: there is room for as many as were counted.
    let listed = unsafe { sys::nvrtcGetSupportedArchs(architectures.as_mut_ptr()) };
    let is_known = counted == sys::nvrtcResult::NVRTC_SUCCESS && listed == sys::nvrtcResult::NVRTC_SUCCESS;
    architectures.into_iter().max().filter(|_| is_known)
}

/// A program of NVRTC's.
struct Program {
    handle: sys::nvrtcProgram,
    /// NVRTC may refer to them.
    _texts: [CString; 2],
}

impl Program {
    fn compile(
        kernel: &'static str,
        source: &str,
        options: &[&str],
        target: &str,
    ) -> Result<Program, CudaError> {
        let failed = |log: String| CudaError::Compile { kernel, target: target.to_owned(), log };
        let text =
            |text: &str| CString::new(text).map_err(|_| failed("the source holds a zero byte".to_owned()));
        let texts = [text(source)?, text(&format!("{kernel}.cu"))?];
        let handle =
            result::create_program(&texts[0], Some(&texts[1])).map_err(|error| failed(error.to_string()))?;
        let program = Program { handle, _texts: texts };
        let mut all = vec![format!("--gpu-architecture={target}")];
        all.extend(options.iter().map(|option| (*option).to_owned()));
        if all.iter().any(|option| option.contains('\0')) {
            return Err(failed("an option holds a zero byte".to_owned()));
        }
        // SAFETY: the program is live.
        match unsafe { result::compile_program(program.handle, &all) } {
            Ok(()) => Ok(program),
            Err(error) => Err(failed(program.log().unwrap_or_else(|| error.to_string()))),
        }
    }

    fn log(&self) -> Option<String> {
        // SAFETY: the program is live.
        let log: Vec<c_char> = unsafe { result::get_program_log(self.handle) }.ok()?;
        let bytes: Vec<u8> = log.into_iter().map(|letter| letter as u8).collect();
        let text = CStr::from_bytes_until_nul(&bytes).ok()?.to_string_lossy();
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    fn code(&self, kind: ImageKind) -> Result<Vec<u8>, String> {
        let refused = |error: result::NvrtcError| error.to_string();
        if kind == ImageKind::Ptx {
            // SAFETY: the program is live and compiled.
            let text = unsafe { result::get_ptx(self.handle) }.map_err(refused)?;
            return Ok(text.into_iter().map(|letter| letter as u8).take_while(|&byte| byte != 0).collect());
        }
        let mut len = 0;
        // SAFETY: the program is live and compiled; the length is written.
        unsafe { sys::nvrtcGetCUBINSize(self.handle, &mut len) }.result().map_err(refused)?;
        let mut code = vec![0_u8; len];
        // SAFETY: there is room for the code.
        unsafe { sys::nvrtcGetCUBIN(self.handle, code.as_mut_ptr().cast()) }.result().map_err(refused)?;
        Ok(code)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program is live. There is nothing to do about a failure.
        let _ = unsafe { result::destroy_program(self.handle) };
    }
}
