import { SpinEsbuildPlugin } from "@spinframework/build-tools/plugins/esbuild/index.js";
import { build } from "esbuild";

const plugins = [await SpinEsbuildPlugin()];
await build({ entryPoints: ["app.js"], outfile: "bundle.js", bundle: true, format: "esm", platform: "node", plugins });
