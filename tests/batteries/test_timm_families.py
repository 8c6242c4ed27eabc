"""What every backbone must keep: the maps are those that were asked for, of one member of every family that timm has.

Networks are built and run without numbers (torch's meta device) where that goes, so that a family takes well under a
second; which layer a map really is needs numbers, and is asked of one network for each way of timm's to get at maps.
"""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from blemish.features.backbones import default_layers, find
from blemish.features.extractor import FeatureExtractor
from blemish.features.undrawn import undrawn

# The smallest member of each family. Always run: the quick ones, and those that once found something.
OFTEN = {
    "beit": "beit_base_patch16_224",
    "byobnet": "test_byobnet",
    "coat": "coat_tiny",
    "convmixer": "convmixer_768_32",
    "convnext": "test_convnext",
    "crossvit": "crossvit_tiny_240",
    "cspnet": "cs3darknet_focus_s",
    "deit": "deit_tiny_patch16_224",
    "densenet": "densenet121",
    "dla": "dla46x_c",
    "dpn": "dpn48b",
    "efficientnet": "test_efficientnet",
    "eva": "vit_tiny_patch16_dinov3_qkvb",
    "ghostnet": "ghostnet_050",
    "hgnet": "hgnetv2_b0",
    "hiera": "hiera_tiny_224",
    "levit": "levit_128s",
    "mambaout": "test_mambaout",
    "maxxvit": "test_coatnet",
    "metaformer": "poolformerv2_s12",
    "mobilenetv3": "mobilenetv3_small_050",
    "nfnet": "test_nfnet",
    "pit": "pit_ti_224",
    "regnet": "regnetx_002",
    "resnet": "test_resnet",
    "resnetv2": "resnetv2_18",
    "selecsls": "selecsls42",
    "sequencer": "sequencer2d_s",
    "sknet": "skresnet18",
    "starnet": "starnet_s050",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "vgg": "vgg11",
    "vision_transformer": "test_vit",
    "vovnet": "ese_vovnet19b_slim_dw",
    "xception_aligned": "xception41p",
}
# The rest found nothing that these don't, and takes a minute.
SELDOM = {
    "byoanet": "halonet_h1",
    "cait": "cait_xxs24_224",
    "convit": "convit_tiny",
    "cpubone": "cpubone_nano",
    "csatv2": "csatv2",
    "cspnext": "cspnext_tiny",
    "davit": "davit_tiny",
    "deepseek_vit": "deepseek_vit_412m",
    "edgenext": "edgenext_xx_small",
    "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0",
    "efficientvim": "efficientvim_m1",
    "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf",
    "gcvit": "gcvit_xxtiny",
    "gemma4_vit": "gemma4_vit_167m",
    "hardcorenas": "hardcorenas_b",
    "hieradet_sam2": "sam2_hiera_tiny",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t",
    "inception_next": "inception_next_atto",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "lcnetv2": "lcnetv2_small",
    "lowformer": "lowformer_b0",
    "mlp_mixer": "gmlp_ti16_224",
    "mobilenetv5": "mobilenetv5_base",
    "mobilevit": "mobilevit_xxs",
    "mvitv2": "mvitv2_tiny",
    "naflexvit": "naflexvit_base_patch16_parfac_gap",
    "nasnet": "nasnetalarge",
    "nest": "nest_tiny",
    "nextvit": "nextvit_small",
    "pnasnet": "pnasnet5large",
    "pvt_v2": "pvt_v2_b0",
    "qwen3_vit": "qwen3_vit_88m",
    "rdnet": "rdnet_tiny",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m1",
    "res2net": "res2next50",
    "resnest": "resnest14d",
    "rexnet": "rexnet_100",
    "senet": "legacy_seresnet18",
    "shvit": "shvit_s1",
    "swiftformer": "swiftformer_xs",
    "swin_transformer_v2": "swinv2_tiny_window8_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tiny_vit": "tiny_vit_5m_224",
    "tnt": "tnt_s_legacy_patch16_224",
    "tresnet": "tresnet_m",
    "twins": "twins_svt_small",
    "visformer": "visformer_tiny",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vision_transformer_relpos": "test_vit_relpos",
    "vision_transformer_sam": "samvit_base_patch16_224",
    "vitamin": "vitamin_small_224",
    "volo": "volo_d1_224",
    "xception": "legacy_xception",
    "xcit": "xcit_nano_12_p8_224",
}
NEED_NUMBERS = {"gemma4_vit", "sequencer"}  # one asks for a value, the other takes half a minute without


def smallest(family: str) -> str:
    members = timm.list_models(module=family)
    wanted = (OFTEN | SELDOM).get(family)
    return wanted if wanted in members else members[0]


@pytest.mark.parametrize(
    "family",
    [pytest.param(one, marks=() if one in OFTEN else pytest.mark.slow) for one in timm.list_modules()],
)
def test_maps_of_every_family(family: str) -> None:
    name = smallest(family)
    height, width = timm.get_pretrained_cfg(name).input_size[1:]
    with torch.device("cpu" if family in NEED_NUMBERS else "meta"), undrawn(), torch.no_grad():
        extractor = FeatureExtractor(name, list(find(name).layers()), pretrained=False)
        maps = extractor(torch.zeros(1, 3, height, width))
    assert [one.shape[1] for one in maps] == extractor.channels
    for one, stride in zip(maps, extractor.strides, strict=True):
        assert one.shape[2:] == pytest.approx((height / stride, width / stride), rel=0.25, abs=1)
    assert set(default_layers(name, (4, 16))) <= set(extractor.layers)


# One for each way in which timm gets at maps, and those whose numbering was once taken for another.
WAYS = (
    "resnet18",
    "vgg11",
    "dla34",
    "selecsls42",
    "pit_ti_224",
    "tf_efficientnet_lite0",
    "mobilenetv3_small_050",
    "test_convnext",
    "test_mambaout",
    "swin_tiny_patch4_window7_224",
    "test_vit",
    "vit_tiny_patch16_dinov3_qkvb",
    "beit_base_patch16_224",
)


def module_of(network: nn.Module, layer: str) -> nn.Module:
    """The module of a layer: timm puts some networks into others, and writes some points as underscores."""
    modules = dict(network.named_modules())
    names = (layer, layer.replace(".", "_", 1), f"model.{layer}", f"body.{layer}")
    return next(modules[name] for name in names if name in modules)


@pytest.mark.parametrize("name", [name for name in WAYS if timm.is_model(name)])
def test_a_map_is_what_the_module_of_its_name_returned(name: str) -> None:
    layers = [layer for layer in find(name).layers() if not layer.endswith("+norm")]
    wanted = layers[len(layers) // 3 :: max(1, len(layers) // 3)]  # neither the first ones nor all
    extractor = FeatureExtractor(name, wanted, pretrained=False)
    returned = {}
    for layer in wanted:
        module_of(extractor.network, layer).register_forward_hook(
            lambda module, given, output, layer=layer: returned.update({layer: output})
        )
    images = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    for layer, one in zip(extractor.layers, extractor(images), strict=True):
        output = returned[layer][0] if isinstance(returned[layer], tuple | list) else returned[layer]
        if output.ndim == 3:  # tokens; those of no patch come first
            output = output[:, -one.shape[2] * one.shape[3] :]
        assert torch.equal(one.flatten().sort()[0], output.flatten().sort()[0]), layer
