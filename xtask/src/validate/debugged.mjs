// node debugged.mjs KUBECTL PROFILE
//
// Prints the pod that `kubectl debug --custom PROFILE` makes: asks the real kubectl, which talks to a server on
// loopback that knows one pod and answers nothing else.
import { spawn } from "node:child_process";
import { createServer } from "node:http";

const [kubectl, profile] = process.argv.slice(2);
const pod = {
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "checkout", namespace: "default", uid: "1", resourceVersion: "1" },
  spec: { containers: [{ name: "checkout", image: "localhost/checkout:dev" }] },
};
const verbs = ["get", "patch"];
const resources = [
  { name: "pods", singularName: "pod", namespaced: true, kind: "Pod", verbs },
  { name: "pods/ephemeralcontainers", singularName: "", namespaced: true, kind: "Pod", verbs },
];
const answers = {
  "/api": { kind: "APIVersions", versions: ["v1"] },
  "/apis": { kind: "APIGroupList", apiVersion: "v1", groups: [] },
  "/api/v1": { kind: "APIResourceList", groupVersion: "v1", resources },
  "/api/v1/namespaces/default/pods/checkout": pod,
};
const server = createServer((request, response) => {
  let body = "";
  request.on("data", (part) => (body += part));
  request.on("end", () => {
    if (request.method === "PATCH") Object.assign(pod.spec, JSON.parse(body).spec);
    const path = request.url.split("?")[0];
    const answer = request.method === "PATCH" ? pod : answers[path];
    response.writeHead(answer ? 200 : 404, { "content-type": "application/json" });
    response.end(JSON.stringify(answer ?? { kind: "Status", status: "Failure", code: 404, reason: "NotFound" }));
  });
}).listen(0, "127.0.0.1", () => {
  const address = `--server=http://127.0.0.1:${server.address().port}`;
  const image = ["--image=localhost/observer:dev", "--target=checkout"];
  const how = ["--profile=general", `--custom=${profile}`, "--attach=false"];
  const command = ["--", "observer", "attach", "1", "--duration", "60s"];
  const asked = [address, "--kubeconfig=/dev/null", "debug", "checkout", ...image, ...how, ...command];
  const child = spawn(kubectl, asked, { stdio: ["ignore", "ignore", "inherit"], timeout: 30000 });
  child.on("error", (error) => fail(`${kubectl}: ${error.message}`));
  child.on("exit", (code) => {
    server.close();
    if (code !== 0 || !pod.spec.ephemeralContainers) fail(`kubectl debug does not take ${profile}`);
    process.stdout.write(`apiVersion: v1\nkind: Pod\nmetadata: {name: debugged}\nspec: ${JSON.stringify(pod.spec)}\n`);
  });
});

function fail(why) {
  console.error(why);
  process.exit(1);
}
