//! Embeds the page: what `npm run build` left in `ui/dist`, or else a page that says how to build it.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher as _};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("ui");
    // The folder is always there; a path that is missing would have this run at every build.
    println!("cargo::rerun-if-changed=ui/dist");
    println!("cargo::rerun-if-changed=ui/fallback.html");
    let dist = root.join("dist");
    let mut code = String::from("&[\n");
    if dist.join("index.html").is_file() {
        let mut assets: Vec<PathBuf> =
            fs::read_dir(dist.join("assets"))?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        assets.retain(|path| path.extension().is_some_and(|extension| extension != "gz"));
        assets.sort();
        embed(&mut code, "index.html", &dist.join("index.html"))?;
        for path in assets {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            embed(&mut code, &name, &path)?;
        }
    } else {
        println!("cargo::warning=the page is not built: `make ui` builds it, where Node.js is there");
        embed(&mut code, "index.html", &root.join("fallback.html"))?;
    }
    code.push(']');
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("page_files.rs"), code)
}

/// Writes the literal of one `File` of `routes/page.rs`.
fn embed(code: &mut String, name: &str, path: &Path) -> io::Result<()> {
    let kind = match path.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => return Err(io::Error::other(format!("{} is of no kind that the page has", path.display()))),
    };
    let mut hash = DefaultHasher::new();
    hash.write(&fs::read(path)?);
    let packed = PathBuf::from(format!("{}.gz", path.display()));
    let gzip = if packed.is_file() { format!("Some(include_bytes!({packed:?}))") } else { "None".to_owned() };
    // Vite names what it hashed `name-` and eight characters: such a file never changes.
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let immutable = stem.rsplit_once('-').is_some_and(|(_, hash)| hash.len() == 8);
    writeln!(
        code,
        "File {{ name: {name:?}, kind: {kind:?}, tag: \"\\\"{:016x}\\\"\", immutable: {immutable}, \
         plain: include_bytes!({path:?}), gzip: {gzip} }},",
        hash.finish(),
    )
    .map_err(io::Error::other)
}
