// The verdict on one image from an exported file, with ONNX Runtime alone.
//
//   c++ -std=c++17 -O2 inspect_image.cpp -lonnxruntime -o inspect_image
//   ./inspect_image model.onnx part.ppm [SENSITIVITY]
//
// Add -I and -L where the headers and the library aren't installed for the whole system. The image is a binary PPM (P6,
// 8 bits), which needs no library to be read; a camera's RGB bytes, rows from top to bottom, do as well. The graph does
// everything else: resizing, scoring, the threshold, map and mask in the pixels of the image.
//
// Exit code: 0 normal, 1 anomalous, 2 error.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

struct Picture {
    int64_t width = 0, height = 0;
    std::vector<uint8_t> rgb;  // height * width * 3
};

// "P6 <width> <height> 255 <bytes>"; comments start with '#'.
Picture read_ppm(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": no such file");
    auto word = [&file] {
        std::string text;
        while (file >> text && text[0] == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
        return text;
    };
    Picture picture;
    const bool p6 = word() == "P6";
    picture.width = std::atoll(word().c_str());
    picture.height = std::atoll(word().c_str());
    const bool eight_bits = word() == "255";
    if (!p6 || !eight_bits || picture.width < 1 || picture.height < 1 || picture.width > 1 << 20 ||
        picture.height > 1 << 20)
        throw std::runtime_error(path + ": not a binary PPM with 8 bits (P6)");
    file.get();  // the one white space before the bytes
    picture.rgb.resize(static_cast<size_t>(picture.width * picture.height * 3));
    if (!file.read(reinterpret_cast<char*>(picture.rgb.data()), static_cast<std::streamsize>(picture.rgb.size())))
        throw std::runtime_error(path + ": the file is cut off");
    return picture;
}

// A number of the metadata's "decision", which comes first in it. With a JSON library at hand, use that.
double number_of(const std::string& json, const std::string& key) {
    const size_t found = json.find('"' + key + "\":");
    if (found == std::string::npos) throw std::runtime_error("the metadata has no " + key);
    return std::strtod(json.c_str() + found + key.size() + 3, nullptr);
}

int inspect(const char* model, const char* path, const char* sensitivity) {
    Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "inspect_image");
    Ort::Session session(env, std::filesystem::path(model).c_str(), Ort::SessionOptions{});
    Ort::AllocatorWithDefaultOptions allocator;
    const auto text = session.GetModelMetadata().LookupCustomMetadataMapAllocated("blemish", allocator);
    if (!text) throw std::runtime_error(std::string(model) + ": not exported by blemish");

    Picture picture = read_ppm(path);
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const std::array<int64_t, 4> shape{1, picture.height, picture.width, 3};
    std::vector<const char*> names{"image"};
    std::vector<Ort::Value> values;
    values.push_back(Ort::Value::CreateTensor<uint8_t>(memory, picture.rgb.data(), picture.rgb.size(), shape.data(),
                                                       shape.size()));
    float alpha = 0;
    if (sensitivity) {  // an optional input: without it, the file's own
        alpha = std::strtof(sensitivity, nullptr);
        names.push_back("image_sensitivity");
        values.push_back(Ort::Value::CreateTensor<float>(memory, &alpha, 1, nullptr, 0));  // a scalar has no axes
    }
    const std::array<const char*, 5> wanted{"raw_score", "pred_score", "pred_label", "anomaly_map", "pred_mask"};
    const auto outputs = session.Run(Ort::RunOptions{}, names.data(), values.data(), values.size(), wanted.data(),
                                     wanted.size());
    const float raw_score = *outputs[0].GetTensorData<float>();
    const float score = *outputs[1].GetTensorData<float>();
    const bool anomalous = *outputs[2].GetTensorData<bool>();
    const float* map = outputs[3].GetTensorData<float>();  // height * width
    const bool* mask = outputs[4].GetTensorData<bool>();   // height * width
    const int64_t pixels = picture.width * picture.height;
    const int64_t worst = std::max_element(map, map + pixels) - map;

    std::printf("%s\n", anomalous ? "anomalous" : "normal");
    std::printf("score %.4f\n", score);
    std::printf("raw score %.4f, calibrated threshold %.4f\n", raw_score, number_of(text.get(), "image_threshold"));
    std::printf("worst pixel x %lld, y %lld; %lld of %lld pixels marked\n",
                static_cast<long long>(worst % picture.width), static_cast<long long>(worst / picture.width),
                static_cast<long long>(std::count(mask, mask + pixels, true)), static_cast<long long>(pixels));
    return anomalous ? 1 : 0;
}

int main(int count, char** arguments) {
    if (count != 3 && count != 4) {
        std::fprintf(stderr, "usage: %s model.onnx part.ppm [SENSITIVITY]\n", arguments[0]);
        return 2;
    }
    try {
        return inspect(arguments[1], arguments[2], count == 4 ? arguments[3] : nullptr);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 2;
    }
}
