module {
  func.func @fake_quant(%x: tensor<1000xf32>, %scale: tensor<1000xf16>, %zero_point: tensor<1000xi32>) -> (tensor<1000xf32>, tensor<1000xi8>)
      attributes {hacc.entry, hacc.function_kind = #hacc.function_kind<DEVICE>} {
    %_empty1 = tensor.empty() : tensor<1000xf32>
    %scale_f32 = hfusion.cast {round_mode = #hfusion.round_mode<rint>} ins(%scale : tensor<1000xf16>) outs(%_empty1 : tensor<1000xf32>) -> tensor<1000xf32>
    %_c3 = arith.constant -1.0 : f32
    %_empty4 = tensor.empty() : tensor<1000xf32>
    %_fill5 = linalg.fill ins(%_c3 : f32) outs(%_empty4 : tensor<1000xf32>) -> tensor<1000xf32>
    %_empty6 = tensor.empty() : tensor<1000xf32>
    %_negative2 = linalg.elemwise_binary {fun = #linalg.binary_fn<div>} ins(%_fill5, %scale_f32 : tensor<1000xf32>, tensor<1000xf32>) outs(%_empty6 : tensor<1000xf32>) -> tensor<1000xf32>
    %_empty7 = tensor.empty() : tensor<1000xf32>
    %_fill8 = linalg.fill ins(%_c3 : f32) outs(%_empty7 : tensor<1000xf32>) -> tensor<1000xf32>
    %_empty9 = tensor.empty() : tensor<1000xf32>
    %inverse_scale = linalg.elemwise_binary {fun = #linalg.binary_fn<mul>} ins(%_negative2, %_fill8 : tensor<1000xf32>, tensor<1000xf32>) outs(%_empty9 : tensor<1000xf32>) -> tensor<1000xf32>
    %_empty10 = tensor.empty() : tensor<1000xf32>
    %multiply = linalg.elemwise_binary {fun = #linalg.binary_fn<mul>} ins(%x, %inverse_scale : tensor<1000xf32>, tensor<1000xf32>) outs(%_empty10 : tensor<1000xf32>) -> tensor<1000xf32>
    %_empty11 = tensor.empty() : tensor<1000xf32>
    %round_half_even = hfusion.cast {round_mode = #hfusion.round_mode<rint>} ins(%multiply : tensor<1000xf32>) outs(%_empty11 : tensor<1000xf32>) -> tensor<1000xf32>
    %_empty12 = tensor.empty() : tensor<1000xf32>
    %zero_point_f32 = hfusion.cast {round_mode = #hfusion.round_mode<rint>} ins(%zero_point : tensor<1000xi32>) outs(%_empty12 : tensor<1000xf32>) -> tensor<1000xf32>
    %_empty13 = tensor.empty() : tensor<1000xf32>
    %add = linalg.elemwise_binary {fun = #linalg.binary_fn<add>} ins(%round_half_even, %zero_point_f32 : tensor<1000xf32>, tensor<1000xf32>) outs(%_empty13 : tensor<1000xf32>) -> tensor<1000xf32>
    %_c15 = arith.constant -128.0 : f32
    %_empty16 = tensor.empty() : tensor<1000xf32>
    %_fill17 = linalg.fill ins(%_c15 : f32) outs(%_empty16 : tensor<1000xf32>) -> tensor<1000xf32>
    %_empty18 = tensor.empty() : tensor<1000xi1>
    %_greater14 = hfusion.compare {compare_fn = #hfusion.compare_fn<vgt>} ins(%add, %_fill17 : tensor<1000xf32>, tensor<1000xf32>) outs(%_empty18 : tensor<1000xi1>) -> tensor<1000xi1>
    %_empty19 = tensor.empty() : tensor<1000xf32>
    %_fill20 = linalg.fill ins(%_c15 : f32) outs(%_empty19 : tensor<1000xf32>) -> tensor<1000xf32>
    %_empty21 = tensor.empty() : tensor<1000xf32>
    %maximum = hfusion.select ins(%_greater14, %add, %_fill20 : tensor<1000xi1>, tensor<1000xf32>, tensor<1000xf32>) outs(%_empty21 : tensor<1000xf32>) -> tensor<1000xf32>
    %_c22 = arith.constant 127.0 : f32
    %_empty23 = tensor.empty() : tensor<1000xf32>
    %_fill24 = linalg.fill ins(%_c22 : f32) outs(%_empty23 : tensor<1000xf32>) -> tensor<1000xf32>
    %_empty25 = tensor.empty() : tensor<1000xf32>
    %minimum = linalg.elemwise_binary {fun = #linalg.binary_fn<min_signed>} ins(%maximum, %_fill24 : tensor<1000xf32>, tensor<1000xf32>) outs(%_empty25 : tensor<1000xf32>) -> tensor<1000xf32>
    %_empty26 = tensor.empty() : tensor<1000xf32>
    %subtract = linalg.elemwise_binary {fun = #linalg.binary_fn<sub>} ins(%minimum, %zero_point_f32 : tensor<1000xf32>, tensor<1000xf32>) outs(%_empty26 : tensor<1000xf32>) -> tensor<1000xf32>
    %_empty27 = tensor.empty() : tensor<1000xf32>
    %out = linalg.elemwise_binary {fun = #linalg.binary_fn<mul>} ins(%subtract, %scale_f32 : tensor<1000xf32>, tensor<1000xf32>) outs(%_empty27 : tensor<1000xf32>) -> tensor<1000xf32>
    %_empty28 = tensor.empty() : tensor<1000xi1>
    %mask = hfusion.compare {compare_fn = #hfusion.compare_fn<veq>} ins(%add, %minimum : tensor<1000xf32>, tensor<1000xf32>) outs(%_empty28 : tensor<1000xi1>) -> tensor<1000xi1>
    %_empty29 = tensor.empty() : tensor<1000xi8>
    %_mask_int8 = hfusion.cast {round_mode = #hfusion.round_mode<rint>} ins(%mask : tensor<1000xi1>) outs(%_empty29 : tensor<1000xi8>) -> tensor<1000xi8>
    return %out, %_mask_int8 : tensor<1000xf32>, tensor<1000xi8>
  }
}
