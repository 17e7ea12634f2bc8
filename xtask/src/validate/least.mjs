// node least.mjs GIVEN
//
// Every container of observer has the three capabilities and nothing else that a container can be given. What differs
// between the manifests is whose processes it sees.
import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { loadAll } from "js-yaml";

const LEAST = {
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  seccompProfile: { type: "RuntimeDefault" },
  capabilities: { drop: ["ALL"], add: ["BPF", "PERFMON", "SYS_PTRACE"] },
};
let found = 0;
for (const document of loadAll(readFileSync(process.argv[2], "utf8"))) {
  const pod = document.kind === "Pod" ? document.spec : document.spec?.template?.spec;
  if (!pod) continue;
  const who = `${document.kind} ${document.metadata.name}`;
  const containers = ["containers", "initContainers", "ephemeralContainers"].flatMap((list) => pod[list] ?? []);
  for (const container of containers.filter((container) => /\/observer:/.test(container.image))) {
    found += 1;
    const { runAsUser, runAsNonRoot, ...rest } = container.securityContext;
    const root = runAsUser === 0 && runAsNonRoot !== true && !container.image.endsWith("-nonroot");
    // Kubernetes gives nobody but root capabilities that the file does not have.
    const user = runAsUser > 0 && runAsNonRoot === true && container.image.endsWith("-nonroot");
    demand(root || user, "a user that fits the image", [container.image, runAsUser, runAsNonRoot]);
    demand(isDeepStrictEqual(rest, LEAST), "exactly the least privileges", rest);
    // A debugging container can have none; BPF maps count against the memory.
    const limited = container.resources?.limits?.memory && container.resources?.requests?.memory;
    demand(limited || pod.ephemeralContainers, "a memory limit", container.resources);
    demand(!container.readinessProbe || document.kind === "DaemonSet", "no readiness probe beside a service");
    demand(!container.startupProbe, "no startup probe");
  }
  const hidden = containers.some((container) =>
    container.volumeMounts?.some((mount) => mount.mountPath === "/var/run/secrets/kubernetes.io/serviceaccount"));
  demand(hidden || pod.automountServiceAccountToken === false || pod.ephemeralContainers, "no token");
  demand(!pod.hostNetwork && !pod.hostIPC, "no network or IPC of the host");
  demand(!pod.hostPID || document.kind === "DaemonSet", "no PIDs of the host but on a node");
  demand(!(pod.volumes ?? []).some((volume) => volume.hostPath), "no path of the host", pod.volumes);

  function demand(holds, what, found) {
    if (!holds) throw new Error(`${who} wants ${what}: ${JSON.stringify(found) ?? "it is not so"}`);
  }
}
if (found === 0) throw new Error("no container of observer");
console.log(`${found} containers of observer with the least privileges`);
