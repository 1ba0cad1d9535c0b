"""What comes from outside, one target each: how to make bad inputs, and what of the library reads them."""

from fuzz_targets.checkpoint import CHECKPOINT
from fuzz_targets.configs import CONFIGS
from fuzz_targets.golden import GOLDEN
from fuzz_targets.graph import GRAPH
from fuzz_targets.manifest import MANIFEST
from fuzz_targets.pcm import PCM
from fuzz_targets.picture import PICTURE
from fuzz_targets.recording import RECORDING
from fuzz_targets.sound import SOUND
from fuzz_targets.spec import SPEC
from fuzz_targets.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (CHECKPOINT, CONFIGS, GOLDEN, GRAPH, MANIFEST, PCM, PICTURE, RECORDING, SOUND, SPEC)
}
