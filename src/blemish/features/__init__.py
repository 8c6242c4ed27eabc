"""Images to feature maps: timm backbones and a classical filter bank behind one interface."""
