"""What comes from outside, one target each: how to make bad inputs, and what of the library reads them."""

from helpers.fuzz_targets.checkpoint import CHECKPOINT
from helpers.fuzz_targets.configs import CONFIGS
from helpers.fuzz_targets.golden import GOLDEN
from helpers.fuzz_targets.graph import GRAPH
from helpers.fuzz_targets.manifest import MANIFEST
from helpers.fuzz_targets.pcm import PCM
from helpers.fuzz_targets.picture import PICTURE
from helpers.fuzz_targets.recording import RECORDING
from helpers.fuzz_targets.sound import SOUND
from helpers.fuzz_targets.spec import SPEC
from helpers.fuzz_targets.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (CHECKPOINT, CONFIGS, GOLDEN, GRAPH, MANIFEST, PCM, PICTURE, RECORDING, SOUND, SPEC)
}
